"""Multi-scale U-Net: three magnifications of the same field, each with its own encoder, fused in one U-Net.

Source: Li J. et al. 2018 (prostate histology). The magnifications are made in the net: the image itself, and the image
averaged over cubes of 2 and of 4 voxels, as a slide is stored. The encoder of the image reduced by 2^s starts at level
s, whose resolution it has. At each level the features of all encoders there are concatenated as the skip, and the
lowest level's two convolutions take what all encoders pass down. Blocks and up-convolutions are U-Net's, all with
bias. How the paper joins its encoders and how wide they are is not told in its abstract; this is the plainest way,
with half U-Net's width because there are three of them.
"""

from typing import Annotated, cast

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.layers import CONV, MEAN_POOL, POOL, UP, Norm, he_normal
from common.nets.shapes import check_input
from common.nets.u_shape import double_conv, fit


@described(
    NetCard(
        title="Multi-scale U-Net",
        source="Li J. et al. 2018, AMIA Annual Symposium, PMC5977596",
        suited="Tissue whose class shows at several magnifications at once: glands, their nuclei and surroundings.",
        federation="No buffers unless `norm: batch`; an update of 55 MB in 2D at the default width.",
        receptive_field=204,
        small={"width": 6, "levels": 4},
    )
)
class MultiScaleUNet(nn.Module):
    """One decoder over several encoders.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level of each encoder, doubled at each further one.
        levels: Resolutions.
        magnifications: Encoders: of the image at full size, at half, at a quarter, and so on; fewer than `levels`.
        norm: Normalisation after each 3-wide convolution.

    Raises:
        StudyError: As many magnifications as levels, or more.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 32,
        levels: Annotated[int, Field(ge=2, le=8)] = 5,
        magnifications: Annotated[int, Field(ge=1, le=7)] = 3,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        if magnifications >= levels:
            raise StudyError(f"net.magnifications: {magnifications} need at least {magnifications + 1} levels")
        *widths, bottom = [width * 2**level for level in range(levels)]
        self.encoders = nn.ModuleList(
            nn.ModuleList(
                double_conv(dimensions, channels if level == start else widths[level - 1], widths[level], norm=norm)
                for level in range(start, len(widths))
            )
            for start in range(magnifications)
        )
        self.bottom = double_conv(dimensions, magnifications * widths[-1], bottom, norm=norm)
        self.grow = nn.ModuleList(UP[dimensions](2 * w, w, 2, 2) for w in reversed(widths))
        skips = [w * min(level + 1, magnifications) for level, w in enumerate(widths)]
        self.up = nn.ModuleList(
            double_conv(dimensions, skip + w, w, norm=norm)
            for w, skip in reversed(list(zip(widths, skips, strict=True)))
        )
        self.head = CONV[dimensions](width, classes, 1)
        self.pool, self.reduce, self.norm = POOL[dimensions](2), MEAN_POOL[dimensions](2), norm
        self.divisor = (2 ** (levels - 1),) * dimensions
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` of images `(B, C, *S)`.

        Raises:
            ValueError: The lowest level would have no voxel, or a single one to normalise.
        """
        check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
        found: list[list[torch.Tensor]] = [[] for _ in self.up]
        lowest = []
        for start, encoder in enumerate(self.encoders):
            x = self.reduce(x) if start else x
            features = x
            for level, block in enumerate(cast(nn.ModuleList, encoder), start=start):
                found[level].append(block(features))
                features = self.pool(found[level][-1])
            lowest.append(features)
        x = self.bottom(torch.cat(lowest, dim=1))
        for grow, block, skips in zip(self.grow, self.up, reversed(found), strict=True):
            x = block(torch.cat((*skips, fit(grow(x), skips[0].shape[2:])), dim=1))
        logits: torch.Tensor = self.head(x)
        return logits
