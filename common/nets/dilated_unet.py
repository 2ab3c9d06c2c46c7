"""3D U-Net with dilated convolutions at the bottom and residual links in the encoder.

Source: Vesal et al. 2018 (3DU-Net+DR), who put dilated convolutions at the lowest level of a U-Net and residual
connections around its encoder's blocks. Beyond its abstract the paper was not at hand, so the rest is read in the
plainest way: levels and widths are those of the 3D U-Net (4 levels from 32 channels); each block of the encoder has two
3-wide convolutions to whose output a 1-wide convolution of its input is added before the last ReLU; the lowest level is
a chain of convolutions with dilations 1, 2, 4, 8; the decoder is U-Net's. Convolutions have biases and are normalised.
"""

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, UP, Norm, conv_unit, he_normal, make_norm
from common.nets.shapes import check_input
from common.nets.unet import UpBlock

_DILATIONS = (1, 2, 4, 8)


@described(
    NetCard(
        title="3D U-Net with dilated residuals",
        source="Vesal et al. 2018, STACOM, doi:10.1007/978-3-030-12029-0_35, arXiv 1808.01673",
        suited="One large chamber or organ in 3D whose surroundings matter, e.g. the left atrium.",
        federation="Batch normalisation's running statistics cross as rounds.buffers says (none with another `norm`); "
        "an update of 37 MB at the default width.",
        receptive_field=308,
        small={"width": 8, "levels": 3},
    )
)
class DilatedUNet(nn.Module):
    """U-Net with residual blocks on the way down and dilated convolutions at the lowest level.

    Args:
        dimensions: 3 as published, or 2.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        levels: Resolutions.
        norm: Normalisation after each 3-wide convolution.

    Sides that are no multiple of `divisor` lose their last rows in pooling; the way up repeats its last row to fit the
    skip.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=256)] = 32,
        levels: Annotated[int, Field(ge=2, le=6)] = 4,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            ResidualBlock(dimensions, i, w, norm) for i, w in zip([channels, *widths[:-2]], widths[:-1], strict=True)
        )
        bottom: list[nn.Module] = []
        for before, dilation in zip((widths[-2], *(widths[-1:] * 3)), _DILATIONS, strict=True):
            bottom += conv_unit(dimensions, before, widths[-1], norm=norm, dilation=dilation)
        self.bottom = nn.Sequential(*bottom)
        block = partial(_double, dimensions, norm)
        self.up = nn.ModuleList(
            UpBlock(UP[dimensions](2 * w, w, 2, 2), block, skip=w, width=w) for w in reversed(widths[:-1])
        )
        self.pool = POOL[dimensions](2)
        self.head = CONV[dimensions](width, classes, 1)
        self.divisor = (2 ** (levels - 1),) * dimensions
        self.norm = norm
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError if the lowest level would have no voxel, or one to normalise."""
        check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bottom(x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        logits: torch.Tensor = self.head(x)
        return logits


class ResidualBlock(nn.Module):
    """Two convolutions, and a 1-wide one around them.

    Args:
        dimensions: 2 or 3.
        before: Channels of the input.
        width: Channels of the output.
        norm: Normalisation after each of the two.
    """

    def __init__(self, dimensions: int, before: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *conv_unit(dimensions, before, width, norm=norm),
            CONV[dimensions](width, width, 3, padding=1),
            make_norm(norm, dimensions, width),
        )
        self.link = CONV[dimensions](before, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, width, *S)`."""
        return torch.relu(self.convolutions(x) + self.link(x))


def _double(dimensions: int, norm: Norm, before: int, middle: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_unit(dimensions, before, middle, norm=norm), *conv_unit(dimensions, middle, after, norm=norm)
    )
