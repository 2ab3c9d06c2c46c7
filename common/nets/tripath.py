"""Tri-path net: three pathways, each of which looks along one plane, joined voxel by voxel.

Source: Fritscher et al. 2016, whose net classifies one voxel from three orthogonal 2D patches around it (2.5D), with a
map of the structure's usual place as a further input. Here it is made fully convolutional: a pathway of planar
convolutions, e.g. of 1 × 3 × 3 voxels, over the volume computes for all voxels at once what the 2D net computes for the
patch around each, and the fully connected layers become 1³ convolutions. The map of the usual place is simply another
image channel.

No code of the authors was found, so widths and depth are this project's choice. A patch net pools between its
convolutions; computed for all voxels at once, dilation is the counterpart of pooling, so dilations here double from
layer to layer: 1, 2, 4, 8 see 31 × 31 voxels of each plane. All convolutions have biases; with one channel and two
classes the default has 96,866 parameters.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import Norm, he_normal, make_norm
from common.nets.shapes import need_3d


@described(
    NetCard(
        title="Tri-path 2.5D net",
        source="Fritscher et al. 2016, MICCAI, doi:10.1007/978-3-319-46723-8_19",
        suited="Small organs of known place in CT, such as parotid glands and optic nerves, with a map of the place as "
        "a channel.",
        federation="0.4 MB in fp32: a very small update; no buffers unless `norm: batch`. A map of the usual "
        "place must be made from public data or by all sites alike, since it is not part of the update.",
        receptive_field=31,
        dimensions=(3,),
        small={"width": 8},
    )
)
class TriPath(nn.Module):
    """Tri-path net after Fritscher et al. 2016, fully convolutional.

    Args:
        dimensions: 3.
        channels: Image channels, a map of the usual place among them if there is one.
        classes: Labels and background.
        width: Maps of each pathway's layers; the joined layer has four times as many.
        layers: Planar convolutions of each pathway; each sees twice as far as the one before it.
        norm: Normalisation between convolution and ReLU (the paper names none).
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=256)] = 32,
        layers: Annotated[int, Field(ge=1, le=6)] = 4,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        need_3d(dimensions, "the tri-path net")
        self.paths = nn.ModuleList(_pathway(axis, channels, width, layers, norm) for axis in range(3))
        self.joined = nn.Sequential(
            nn.Conv3d(3 * width, 4 * width, 1), make_norm(norm, 3, 4 * width), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv3d(4 * width, classes, 1)
        self.divisor = (1, 1, 1)
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` for an image of any size."""
        logits: torch.Tensor = self.head(self.joined(torch.cat([path(x) for path in self.paths], dim=1)))
        return logits


def _pathway(across: int, channels: int, width: int, layers: int, norm: Norm) -> nn.Sequential:
    """Convolutions of width 3 in the plane across axis `across`, and of width 1 along it."""
    kernel = [3, 3, 3]
    kernel[across] = 1
    steps: list[nn.Module] = []
    for layer in range(layers):
        reach = 2**layer
        before = width if layer else channels
        conv = nn.Conv3d(before, width, (kernel[0], kernel[1], kernel[2]), padding="same", dilation=reach)
        steps += [conv, make_norm(norm, 3, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*steps)
