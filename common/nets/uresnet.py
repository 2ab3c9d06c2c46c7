"""uResNet: a light U of residual elements whose skips are added, for lesions in brain MRI.

Source: Guerrero et al. 2018. Twelve layers: eight residual elements, three up-convolutions, one output convolution.
A residual element is a 3-wide convolution plus a 1-wide convolution of the same input, then normalisation and ReLU.
Three elements go down (32, 64, 128 channels), one lies at the bottom (256), one follows the first up-convolution
before the skip is added to it, and three go up. Up-convolutions are 3-wide with stride 2. Every convolution has a
bias. The paper gives the number of parameters only as about one million; this reading of its figure has 1.2 million.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, UP, Norm, make_norm
from common.nets.u_shape import UShape

LEVELS = 4


class ResidualElement(nn.Module):
    """A 3-wide and a 1-wide convolution of the same input, added, normalised, rectified.

    Args:
        dimensions: 2 or 3.
        before: Channels of the input.
        after: Channels of the output.
        norm: Normalisation of the sum.
    """

    def __init__(self, dimensions: int, before: int, after: int, *, norm: Norm) -> None:
        super().__init__()
        self.wide = CONV[dimensions](before, after, 3, padding=1)
        self.branch = CONV[dimensions](before, after, 1)
        self.norm = make_norm(norm, dimensions, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, after, *S)` of features `(B, before, *S)`."""
        return torch.relu(self.norm(self.wide(x) + self.branch(x)))


@described(
    NetCard(
        title="uResNet",
        source="Guerrero et al. 2018, NeuroImage: Clinical 17, doi:10.1016/j.nicl.2017.12.022, arXiv 1706.00935",
        suited="Small lesions of several kinds, such as white matter hyperintensities and strokes, on patches.",
        federation="Running statistics at the default `norm: batch` cross as rounds.buffers says; an update of 5 MB.",
        receptive_field=70,
        small={"width": 8},
    )
)
def uresnet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 32,
    norm: Norm = "batch",
) -> UShape:
    """Build the net.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        norm: Normalisation of each residual element's sum.
    """

    def element(before: int, after: int) -> ResidualElement:
        return ResidualElement(dimensions, before, after, norm=norm)

    def doubling(after: int) -> nn.Module:
        return UP[dimensions](2 * after, after, 3, 2, padding=1, output_padding=1)

    widths = [width * 2**level for level in range(LEVELS)]
    *skips, _ = widths
    deepest, *others = reversed(skips)
    # Initial weights are PyTorch's: He's would double the sums in each element where nothing normalises.
    return UShape(
        down=[element(i, w) for i, w in zip([channels, *skips], widths, strict=True)],
        shrink=[POOL[dimensions](2) for _ in skips],
        grow=[nn.Sequential(doubling(deepest), element(deepest, deepest)), *(doubling(w) for w in others)],
        up=[element(w, w) for w in reversed(skips)],
        head=CONV[dimensions](width, classes, 1),
        divisor=(2 ** (LEVELS - 1),) * dimensions,
        norm=norm,
        join="add",
    )
