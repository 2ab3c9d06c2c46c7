"""Dense connections: what the densely connected nets share.

Source: Huang et al. 2017, CVPR, arXiv 1608.06993.
"""

from collections.abc import Iterable

import torch
from torch import nn

from common.nets.layers import CONV, Norm, make_norm


class DenseBlock(nn.Module):
    """Units each of which sees the input and the maps of all units before it; the output holds them all.

    Args:
        units: Modules of `(B, C, *S)`; unit i takes the input's channels and those of the i units before it.
    """

    def __init__(self, units: Iterable[nn.Module]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input's channels followed by those of each unit."""
        for unit in self.units:
            x = torch.cat((x, unit(x)), dim=1)
        return x


def preactivated(
    dimensions: int, before: int, after: int, kernel: int, *, norm: Norm, dropout: float = 0.0
) -> nn.Sequential:
    """Norm, ReLU, convolution that keeps the size, dropout; the convolution has a bias only without norm."""
    layers = [
        make_norm(norm, dimensions, before),
        # Without a norm the ReLU would write into the maps that other units see.
        nn.ReLU(inplace=norm != "none"),
        CONV[dimensions](before, after, kernel, padding=kernel // 2, bias=norm == "none"),
    ]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))
