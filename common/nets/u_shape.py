"""The U that several nets share: blocks down, blocks up, and skips between levels of equal size."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from common.nets.layers import Norm, conv_unit
from common.nets.shapes import check_input


def double_conv(dimensions: int, before: int, after: int, *, norm: Norm) -> nn.Sequential:
    """U-Net's block: two `conv_unit`s of width `after`."""
    return nn.Sequential(
        conv_unit(dimensions, before, after, norm=norm), conv_unit(dimensions, after, after, norm=norm)
    )


def fit(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """`x` at `size`: halving an odd side and doubling it again makes it one shorter, or longer if halved upwards.

    What is missing repeats the last voxel, what is too long is left out.
    """
    for axis, n in enumerate(size, start=2):
        if x.shape[axis] < n:
            x = torch.cat((x, x.narrow(axis, x.shape[axis] - 1, 1)), dim=axis)
        elif x.shape[axis] > n:
            x = x.narrow(axis, 0, n)
    return x


class UShape(nn.Module):
    """An encoder and a decoder with a skip at each level but the lowest.

    Sides that are no multiple of `divisor` are handled: see `fit`.

    Args:
        down: The block of each level, the full resolution first, the lowest level last.
        shrink: From each level to the next lower one.
        grow: From each level to the next higher one, the deepest first.
        up: The block of each level on the way up, the deepest first.
        head: From the last features to logits.
        divisor: By how much the lowest level is coarser, per axis.
        norm: The blocks' normalisation; with any, the lowest level needs two voxels.
        join: Whether features and skip are concatenated (the skip first) or added before each block of `up`.
    """

    def __init__(
        self,
        *,
        down: Iterable[nn.Module],
        shrink: Iterable[nn.Module],
        grow: Iterable[nn.Module],
        up: Iterable[nn.Module],
        head: nn.Module,
        divisor: tuple[int, ...],
        norm: Norm,
        join: Literal["concatenate", "add"] = "concatenate",
    ) -> None:
        super().__init__()
        self.down, self.shrink = nn.ModuleList(down), nn.ModuleList(shrink)
        self.grow, self.up = nn.ModuleList(grow), nn.ModuleList(up)
        self.head = head
        self.divisor, self.norm, self.join = divisor, norm, join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` of images `(B, C, *S)`.

        Raises:
            ValueError: The lowest level would have no voxel, or a single one to normalise.
        """
        check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
        *blocks, bottom = self.down
        skips = []
        for block, shrink in zip(blocks, self.shrink, strict=True):
            skips.append(block(x))
            x = shrink(skips[-1])
        x = bottom(x)
        for grow, block, skip in zip(self.grow, self.up, reversed(skips), strict=True):
            x = fit(grow(x), skip.shape[2:])
            x = block(torch.cat((skip, x), dim=1) if self.join == "concatenate" else skip + x)
        logits: torch.Tensor = self.head(x)
        return logits
