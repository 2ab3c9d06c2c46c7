"""FCN-32s, FCN-16s and FCN-8s: VGG-16 made convolutional, class scores fused from coarse to fine.

Source: Long et al. 2015 and its released networks. Convolutions have biases; the classifier's first layers become a
7-wide and a 1-wide convolution of 4,096 channels with dropout; scores come from 1-wide convolutions, fused by sums;
each score map is enlarged by a transposed convolution of twice its stride, all classes to all, without bias, which
begins as bilinear interpolation. The image gets a border of 100 zeros, of which the output is cut free again at the
released networks' offsets: an image of any size will do. Parameters for 3 channels and 21 classes: 136,152,917 (32),
134,815,994 (16), 134,489,759 (8).

Two points differ, because nothing is pretrained here: the score layers begin as the others do (in the paper as 0 on
ImageNet's weights), and the three nets are trained at once instead of one from the other. All transposed convolutions
are learnt (in the paper the last one is fixed).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.layers import Norm, conv_unit, he_normal
from common.nets.shapes import check_input
from common.nets.vgg import vgg_stages, vgg_widths

# The first convolution pads 100 where 1 would keep the size.
_BORDER = 99
# Where the maps begin that lie over each other: the released networks' crops.
_SKIP_OFFSETS = (5, 9)
_OUTPUT_OFFSETS = {32: 19, 16: 27, 8: 31}


@described(
    NetCard(
        title="FCN-32s, FCN-16s, FCN-8s",
        source="Long et al. 2015, CVPR, arXiv 1411.4038",
        suited="The historical reference in 2D; smooth large regions, not fine borders.",
        federation="No buffers unless `norm: batch`; an update of 537 MB at the default width, most of it one layer.",
        receptive_field=468,
        dimensions=(2,),
        small={"width": 4},
    )
)
class FCN(nn.Module):
    """FCN on VGG-16, from scratch.

    Args:
        dimensions: 2.
        channels: Image channels.
        classes: Labels and background.
        stride: Resolution of the finest scores, as a fraction of the image's: 32 takes the last layer only, 16 adds
            the fourth stage, 8 also the third.
        width: Channels of the first stage; the further ones and the classifier's layers scale with it (64 in the paper,
            giving up to 512 and 4,096).
        norm: Normalisation between convolution and ReLU (the paper has none).
        dropout: Share of the classifier's features that are set to 0 in training.

    Raises:
        StudyError: `dimensions` is not 2.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        stride: Literal[32, 16, 8] = 8,
        width: Annotated[int, Field(ge=1, le=64)] = 64,
        norm: Norm = "none",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()
        if dimensions != 2:
            raise StudyError(f"net fcn takes data.dimensions: 2, not {dimensions}; nets unet and vnet take 3")
        self.stages = vgg_stages(2, channels, width=width, norm=norm)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        widths, features = vgg_widths(width), 64 * width
        self.classifier = nn.Sequential(
            *conv_unit(2, widths[-1], features, kernel=7, norm=norm, pad=False),
            nn.Dropout(dropout),
            *conv_unit(2, features, features, kernel=1, norm=norm),
            nn.Dropout(dropout),
            nn.Conv2d(features, classes, 1),
        )
        skips = {32: (), 16: (3,), 8: (3, 2)}[stride]
        self.scores = nn.ModuleDict({str(stage): nn.Conv2d(widths[stage], classes, 1) for stage in skips})
        self.up = nn.ModuleList(_bilinear(classes, 2) for _ in skips)
        self.apply(he_normal)
        self.last = _bilinear(classes, stride)
        for up in (*self.up, self.last):
            _start_as_bilinear(up)
        self.stride, self.norm = stride, norm
        self.divisor = (1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, H, W)`; ValueError if the classifier might have a single voxel to normalise."""
        size = x.shape[2:]
        if self.norm != "none":
            check_input(size, (32, 32), multiple=False, more_than_one=False)
        x = F.pad(x, (_BORDER,) * 4)
        pooled = []
        for stage in self.stages:
            x = self.pool(stage(x))
            pooled.append(x)
        x = self.classifier(x)
        for up, (stage_name, score), offset in zip(self.up, self.scores.items(), _SKIP_OFFSETS, strict=False):
            x = up(x)
            x = x + _window(score(pooled[int(stage_name)]), offset, x.shape[2:])
        return _window(self.last(x), _OUTPUT_OFFSETS[self.stride], size)


def _bilinear(classes: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(classes, classes, 2 * stride, stride, bias=False)


def _start_as_bilinear(up: nn.ConvTranspose2d) -> None:
    stride = up.stride[0]
    ramp = 1 - (torch.arange(2 * stride) + 0.5 - stride).abs() / stride
    with torch.no_grad():
        up.weight.zero_()
        for label in range(up.in_channels):
            up.weight[label, label] = torch.outer(ramp, ramp)


def _window(x: torch.Tensor, offset: int, size: torch.Size) -> torch.Tensor:
    return x.narrow(2, offset, size[0]).narrow(3, offset, size[1])
