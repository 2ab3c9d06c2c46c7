"""3D-SkipDenseSeg: four dense blocks whose outputs are all brought to full resolution, class by class.

Source: Bui et al. 2017 and 2019; the authors' code (github.com/tbuikr/3D-SkipDenseSeg) decides the details:

    stem        three 3³ convolutions to 32 maps, norm and ReLU between; norm, ReLU, 2³ convolution of stride 2
    block       4 units of norm, ReLU, 1³ convolution to 64 maps, norm, ReLU, 3³ convolution to 16 maps, dropout 0.2
    transition  norm, ReLU, 1³ convolution to half the maps; norm, ReLU, 2³ convolution of stride 2
    skip        each block's output by one transposed convolution of width 2ⁱ + 2 and stride 2ⁱ to one map per class
    head        the skips and the stem's maps before its last norm: norm, ReLU, 1³ convolution

Only the strided convolutions of the transitions and the head have biases. In the transposed convolutions each class
sees its own equal share of the block's maps; where the maps cannot be dealt out equally, shares differ by one map,
which leaves the number of weights the same (the authors' code cannot be built then). Two channels and four classes
make 1,552,256 parameters.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.dense import DenseBlock, preactivated
from common.nets.layers import Norm, he_normal, make_norm
from common.nets.shapes import check_input, need_3d

BLOCKS, UNITS = 4, 4


@described(
    NetCard(
        title="3D-SkipDenseSeg",
        source="Bui et al. 2017, arXiv 1709.03199; 2019, Biomedical Signal Processing and Control, "
        "doi:10.1016/j.bspc.2019.101613",
        suited="Tissues of low contrast in several MR channels, such as the infant brain.",
        federation="6 MB in fp32: a small update; batch normalisation's statistics, in every layer, cross as "
        "rounds.buffers says.",
        receptive_field=278,
        dimensions=(3,),
        small={"width": 8},
    )
)
class SkipDenseSeg(nn.Module):
    """3D-SkipDenseSeg of Bui et al.

    Args:
        dimensions: 3.
        channels: Image channels.
        classes: Labels and background.
        width: Maps of the stem (32 in the paper); each unit adds half of it, after a bottleneck of twice it.
        norm: Normalisation before each ReLU (the paper has `batch`); all have a learnt scale and shift.
        dropout: Rate after each unit (0.2 in the paper).

    Raises:
        StudyError: There are more classes than maps to deal out to them.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=4, le=256, multiple_of=2)] = 32,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    ) -> None:
        super().__init__()
        need_3d(dimensions, "3D-SkipDenseSeg")
        bias = norm == "none"
        self.stem = nn.Sequential(
            nn.Conv3d(channels, width, 3, padding=1, bias=bias),
            preactivated(3, width, width, 3, norm=norm),
            preactivated(3, width, width, 3, norm=norm),
        )
        self.first = _halve(width, norm, bias=bias)
        blocks, transitions, skips = [], [], []
        maps = width
        for index in range(BLOCKS):
            blocks.append(_block(maps, width // 2, norm, dropout))
            maps += UNITS * width // 2
            skips.append(UpPerClass(maps, classes, 2 ** (index + 1)))
            if index < BLOCKS - 1:
                squeeze = preactivated(3, maps, maps // 2, 1, norm=norm)
                maps //= 2
                transitions.append(nn.Sequential(squeeze, _halve(maps, norm, bias=True)))
        self.blocks, self.transitions = nn.ModuleList(blocks), nn.ModuleList(transitions)
        self.skips = nn.ModuleList(skips)
        joined = BLOCKS * classes + width
        self.head = nn.Sequential(
            make_norm(norm, 3, joined), nn.ReLU(inplace=norm != "none"), nn.Conv3d(joined, classes, 1)
        )
        self.divisor = (2**BLOCKS,) * 3
        self.norm = norm
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`.

        Raises:
            ValueError: A side is no multiple of 16, or the lowest level would have a single voxel to normalise.
        """
        check_input(x.shape[2:], self.divisor, more_than_one=self.norm != "none")
        stem = self.stem(x)
        features = [self.blocks[0](self.first(stem))]
        for transition, block in zip(self.transitions, self.blocks[1:], strict=True):
            features.append(block(transition(features[-1])))
        skips = [skip(f) for skip, f in zip(self.skips, features, strict=True)]
        logits: torch.Tensor = self.head(torch.cat((*skips, stem), dim=1))
        return logits


class UpPerClass(nn.Module):
    """Transposed convolution to one map per class, each from its own share of the maps, without bias.

    Args:
        maps: Input channels.
        classes: Output channels.
        stride: By how much the resolution grows; kernels are 2 wider.

    Raises:
        StudyError: There are more classes than maps.
    """

    def __init__(self, maps: int, classes: int, stride: int) -> None:
        super().__init__()
        if classes > maps:
            raise StudyError(f"{classes} classes cannot share {maps} maps: set a larger net.width")
        self.classes, self.stride = classes, stride
        kernel = stride + 2
        self.weight = nn.Parameter(torch.empty(maps, 1, kernel, kernel, kernel))
        # An output voxel is a sum over one class's share of the maps and, per axis, kernel / stride taps on average.
        nn.init.normal_(self.weight, std=math.sqrt(2 * classes / maps * (stride / kernel) ** 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, maps, *S)` to `(B, classes, *stride·S)`."""
        shares = x.tensor_split(self.classes, dim=1)
        weights = self.weight.tensor_split(self.classes)
        ups = [F.conv_transpose3d(s, w, None, self.stride, 1) for s, w in zip(shares, weights, strict=True)]
        return torch.cat(ups, dim=1)


def _block(maps: int, growth: int, norm: Norm, dropout: float) -> DenseBlock:
    def unit(before: int) -> nn.Sequential:
        squeeze = preactivated(3, before, 4 * growth, 1, norm=norm)
        return nn.Sequential(squeeze, preactivated(3, 4 * growth, growth, 3, norm=norm, dropout=dropout))

    return DenseBlock(unit(maps + i * growth) for i in range(UNITS))


def _halve(maps: int, norm: Norm, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        make_norm(norm, 3, maps), nn.ReLU(inplace=norm != "none"), nn.Conv3d(maps, maps, 2, stride=2, bias=bias)
    )
