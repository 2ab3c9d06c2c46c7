"""HyperDense-Net: one path per image channel, each layer of which sees all earlier maps of all paths.

Source: Dolz et al. 2018; the authors' code (github.com/josedolz/HyperDenseNet) with its `HyperDenseNet_Config.ini`
decides the details:

    path   nine layers of norm, PReLU, 3³ convolution without padding: 25, 25, 25, 50, 50, 50, 75, 75, 75 maps
    input  of each layer: the maps of all earlier layers of all paths, cropped to the size of the last
    join   once more all maps, once for each path; three times norm, PReLU, dropout 0.25, 1³ convolution: 400, 200, 100
    score  norm, dropout 0.5, 1³ convolution with bias

The first layer, too, begins with norm and PReLU, whose slopes start at 0.01. Two channels and four classes make
10,339,250 weights of convolutions; scale, shift, slopes and the score's biases come on top.

Layers of one depth see the same maps in all paths. The paper gives each path its own order of them, which only permutes
the weights of a convolution; here all paths share one order, which saves the copies.

27³ voxels give 9³: the image is mirrored by 9 voxels at its border first, so that the output has the image's size. That
costs much at small patches: 32³ voxels become 50³.
"""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.layers import Norm, crop, he_normal, make_norm, mirror
from common.nets.shapes import need_3d

LAYERS = 9


@described(
    NetCard(
        title="HyperDense-Net",
        source="Dolz et al. 2018, IEEE Transactions on Medical Imaging, arXiv 1804.02967",
        suited="Several MR sequences of one anatomy; fine tissues at full resolution.",
        federation="42 MB in fp32 for two channels, growing with the square of their number; every site needs every "
        "channel; batch normalisation's statistics cross as rounds.buffers says.",
        receptive_field=19,
        dimensions=(3,),
        small={"width": 2},
        channels=2,
    )
)
class HyperDenseNet(nn.Module):
    """HyperDense-Net of Dolz et al. 2018 for two or more image channels.

    Args:
        dimensions: 3.
        channels: Image channels, each with its own path.
        classes: Labels and background.
        width: Maps of each of the first three layers (25 in the paper); the others have 2 and 3 times, the joined
            layers 16, 8 and 4 times as many.
        norm: Normalisation before each PReLU (the paper has `batch`); all have a learnt scale and shift.
        dropout: Rate in the joined layers (0.25 in the paper); twice that before the score.

    Raises:
        StudyError: There is only one image channel.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=128)] = 25,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, le=0.5)] = 0.25,
    ) -> None:
        super().__init__()
        need_3d(dimensions, "HyperDense-Net")
        if channels < 2:
            raise StudyError("HyperDense-Net joins two or more image channels, but data.channels has one")
        seen = 0
        layers = []
        for index in range(LAYERS):
            maps = width * (1 + index // 3)
            paths = (_layer(seen or 1, maps, 3, norm) for _ in range(channels))
            layers.append(nn.ModuleList(paths))
            seen += channels * maps
        self.layers = nn.ModuleList(layers)
        widths = (channels * seen, 16 * width, 8 * width, 4 * width)
        joined = (_layer(i, o, 1, norm, dropout) for i, o in pairwise(widths))
        self.joined = nn.Sequential(*joined)
        self.score = nn.Sequential(
            make_norm(norm, 3, 4 * width), nn.Dropout(2 * dropout), nn.Conv3d(4 * width, classes, 1)
        )
        self.channels = channels
        self.divisor = (1, 1, 1)
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` for an image of any size."""
        for axis in (2, 3, 4):
            x = mirror(x, axis, LAYERS, LAYERS)
        return self.unpadded(x)

    def unpadded(self, x: torch.Tensor) -> torch.Tensor:
        """The bare net, whose output is 18 voxels smaller per axis than its input."""
        new = [layer(x[:, i : i + 1]) for i, layer in enumerate(self.layers[0].children())]
        seen = torch.cat(new, dim=1)
        for paths in self.layers[1:]:
            new = [layer(seen) for layer in paths.children()]
            seen = torch.cat((crop(seen, new[0].shape[2:]), *new), dim=1)
        logits: torch.Tensor = self.score(self.joined(torch.cat([seen] * self.channels, dim=1)))
        return logits


def _layer(before: int, after: int, kernel: int, norm: Norm, dropout: float = 0.0) -> nn.Sequential:
    layers = [make_norm(norm, 3, before), nn.PReLU(before, init=0.01), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Conv3d(before, after, kernel, bias=norm == "none"))
