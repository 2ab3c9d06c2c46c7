"""Residual U-Net: U-Net whose double convolutions add a 1-wide branch from their input.

Source: Li H. et al. 2018, whose net without the conditional random field (`cru_net`) this is. A block is
convolution, normalisation, ReLU, convolution, normalisation; then a 1-wide convolution of the block's input is added,
before the last ReLU. Up-convolutions halve the channels. All convolutions have a bias; the branch has no
normalisation. The paper's text does not say in the places open to us which normalisation it uses; the default is that
of `unet`.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, UP, Norm, conv_unit, he_normal, make_norm
from common.nets.u_shape import UShape


class ResidualBlock(nn.Module):
    """Two convolutions and a 1-wide branch beside them.

    Args:
        dimensions: 2 or 3.
        before: Channels of the input.
        after: Channels of the output.
        norm: Normalisation after each of the two convolutions.
    """

    def __init__(self, dimensions: int, before: int, after: int, *, norm: Norm) -> None:
        super().__init__()
        self.first = conv_unit(dimensions, before, after, norm=norm)
        self.second = nn.Sequential(CONV[dimensions](after, after, 3, padding=1), make_norm(norm, dimensions, after))
        self.branch = CONV[dimensions](before, after, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, after, *S)` of features `(B, before, *S)`."""
        return torch.relu(self.second(self.first(x)) + self.branch(x))


@described(
    NetCard(
        title="Residual U-Net",
        source="Li H. et al. 2018, MICCAI workshops, arXiv 1808.08885",
        suited="Where a deep U-Net trains slowly: the branches carry gradients past the convolutions.",
        federation="No buffers unless `norm: batch`; an update of 130 MB in 2D at the default width.",
        receptive_field=204,
        small={"width": 8, "levels": 3},
    )
)
def residual_unet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 64,
    levels: Annotated[int, Field(ge=2, le=8)] = 5,
    norm: Norm = "instance",
) -> UShape:
    """Build the net.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        levels: Resolutions.
        norm: Normalisation after each 3-wide convolution.
    """
    widths = [width * 2**level for level in range(levels)]
    net = UShape(
        down=[
            ResidualBlock(dimensions, i, w, norm=norm) for i, w in zip([channels, *widths[:-1]], widths, strict=True)
        ],
        shrink=[POOL[dimensions](2) for _ in widths[1:]],
        grow=[UP[dimensions](2 * w, w, 2, 2) for w in reversed(widths[:-1])],
        up=[ResidualBlock(dimensions, 2 * w, w, norm=norm) for w in reversed(widths[:-1])],
        head=CONV[dimensions](width, classes, 1),
        divisor=(2 ** (levels - 1),) * dimensions,
        norm=norm,
    )
    net.apply(he_normal)
    return net
