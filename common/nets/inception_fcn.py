"""Inception FCN: a U-shaped net whose blocks look at several widths at once.

Source: Chudzik et al. 2018, with the block of Szegedy et al. 2015. A block has four branches of equal width,
concatenated: a 1-wide convolution; a 1-wide and a 3-wide one; a 1-wide and a 5-wide one; a 3-wide maximum and a
1-wide convolution. Each convolution has a bias, normalisation and ReLU. The paper's abstract, all of it that is open
to us, gives neither widths nor depth: here every level has one block, four levels have 64 to 512 channels as in
U-Net, max-pooling and up-convolutions by 2 join them.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, UP, Norm, conv_unit, he_normal
from common.nets.u_shape import UShape

BRANCHES = 4


class InceptionBlock(nn.Module):
    """Four branches of different reach, concatenated.

    Args:
        dimensions: 2 or 3.
        before: Channels of the input.
        after: Channels of the output, a multiple of 4.
        norm: Normalisation after each convolution.
    """

    def __init__(self, dimensions: int, before: int, after: int, *, norm: Norm) -> None:
        super().__init__()
        width = after // BRANCHES

        def unit(inputs: int, kernel: int) -> nn.Sequential:
            return conv_unit(dimensions, inputs, width, norm=norm, kernel=kernel)

        self.branches = nn.ModuleList(
            [
                unit(before, 1),
                nn.Sequential(unit(before, 1), unit(width, 3)),
                nn.Sequential(unit(before, 1), unit(width, 5)),
                nn.Sequential(POOL[dimensions](3, stride=1, padding=1), unit(before, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, after, *S)` of features `(B, before, *S)`."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@described(
    NetCard(
        title="Inception FCN",
        source="Chudzik et al. 2018, SPIE Medical Imaging, doi:10.1117/12.2293549",
        suited="Small findings of very different size on patches, such as exudates in fundus photographs.",
        federation="Running statistics at the default `norm: batch` cross as rounds.buffers says; an update of 8 MB.",
        receptive_field=100,
        small={"width": 16, "levels": 3},
    )
)
def inception_fcn(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=4, le=256, multiple_of=4)] = 64,
    levels: Annotated[int, Field(ge=2, le=8)] = 4,
    norm: Norm = "batch",
) -> UShape:
    """Build the net.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, a quarter per branch, doubled at each further level.
        levels: Resolutions.
        norm: Normalisation after each convolution.
    """
    widths = [width * 2**level for level in range(levels)]
    net = UShape(
        down=[
            InceptionBlock(dimensions, i, w, norm=norm) for i, w in zip([channels, *widths[:-1]], widths, strict=True)
        ],
        shrink=[POOL[dimensions](2) for _ in widths[1:]],
        grow=[UP[dimensions](2 * w, w, 2, 2) for w in reversed(widths[:-1])],
        up=[InceptionBlock(dimensions, 2 * w, w, norm=norm) for w in reversed(widths[:-1])],
        head=CONV[dimensions](width, classes, 1),
        divisor=(2 ** (levels - 1),) * dimensions,
        norm=norm,
    )
    net.apply(he_normal)
    return net
