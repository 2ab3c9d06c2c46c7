"""DenseVoxNet: two dense blocks at half and quarter resolution, and an auxiliary output.

Source: Yu L. et al. 2017; the release (github.com/yulequan/HeartSeg, DenseVoxNet) decides the details:

    stem        3³ convolution of stride 2 to 16 maps
    blocks      12 units of norm, ReLU, 3³ convolution to 12 maps, dropout 0.2; all units see all maps before them
    transition  norm, ReLU, 1³ convolution that keeps the number of maps; dropout and max-pooling by 2
    way up      two transposed convolutions of width 4 and stride 2 to 128 and 64 maps, each with ReLU; 1³ score
    auxiliary   1³ score of the transition before pooling, one transposed convolution per class, loss weight 0.33

Only the transposed convolutions of the way up and the scores have biases. With one channel and three classes that makes
4,339,990 parameters, of which 675 are the auxiliary output's; the 1.8 million of the paper are another count. The
auxiliary transposed convolution starts, as in the release, as linear interpolation; the other initial weights are those
of He instead of a Gaussian of 0.01.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.dense import DenseBlock, preactivated
from common.nets.layers import Norm, he_normal
from common.nets.shapes import check_input, need_3d

LAYERS = 12


@described(
    NetCard(
        title="DenseVoxNet",
        source="Yu L. et al. 2017, MICCAI, arXiv 1708.00573",
        suited="Heart and vessels in 3D MR from few volumes.",
        federation="17 MB in fp32; batch normalisation's statistics cross as rounds.buffers says; the auxiliary output "
        "is part of the update (675 numbers).",
        receptive_field=157,
        dimensions=(3,),
        small={"width": 4},
    )
)
class DenseVoxNet(nn.Module):
    """DenseVoxNet of Yu L. et al. 2017.

    Args:
        dimensions: 3.
        channels: Image channels.
        classes: Labels and background.
        width: Maps of the stem (16 in the paper); each unit adds three quarters of it, the way up has 8 and 4 times it.
        norm: Normalisation before each ReLU of the blocks (the paper has `batch`); all have a learnt scale and shift.
        dropout: Rate after each unit and after the transition (0.2 in the paper).
        deep_supervision: Also supervise the transition, as the paper does.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=4, le=128, multiple_of=4)] = 16,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        need_3d(dimensions, "DenseVoxNet")
        growth = 3 * width // 4
        fine, coarse = width + LAYERS * growth, width + 2 * LAYERS * growth

        def block(before: int) -> DenseBlock:
            inputs = (before + i * growth for i in range(LAYERS))
            return DenseBlock(preactivated(3, n, growth, 3, norm=norm, dropout=dropout) for n in inputs)

        self.stem = nn.Conv3d(channels, width, 3, stride=2, padding=1, bias=norm == "none")
        self.fine = nn.Sequential(block(width), preactivated(3, fine, fine, 1, norm=norm))
        self.pool = nn.Sequential(nn.Dropout(dropout), nn.MaxPool3d(2))
        self.coarse = nn.Sequential(block(fine), preactivated(3, coarse, coarse, 1, norm=norm))
        self.up = nn.Sequential(
            nn.ConvTranspose3d(coarse, 8 * width, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose3d(8 * width, 4 * width, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv3d(4 * width, classes, 1)
        self.auxiliary = _auxiliary(fine, classes) if deep_supervision else None
        if deep_supervision:
            self.head_weights = (1.0, 0.33)
        self.divisor = (4, 4, 4)
        self.norm = norm
        self.apply(he_normal)
        if self.auxiliary is not None:
            _interpolate(self.auxiliary[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training with deep supervision also the auxiliary ones, at the same resolution.

        Raises:
            ValueError: A side is no multiple of 4, or the lowest level would have a single voxel to normalise.
        """
        check_input(x.shape[2:], self.divisor, more_than_one=self.norm != "none")
        transition = self.fine(self.stem(x))
        logits: torch.Tensor = self.head(self.up(self.coarse(self.pool(transition))))
        if self.training and self.auxiliary is not None:
            return [logits, self.auxiliary(transition)]
        return logits


def _auxiliary(maps: int, classes: int) -> nn.Sequential:
    up = nn.ConvTranspose3d(classes, classes, 4, stride=2, padding=1, groups=classes, bias=False)
    return nn.Sequential(nn.Conv3d(maps, classes, 1), up)


def _interpolate(up: nn.Module) -> None:
    """Give a transposed convolution of width 4 and stride 2 the weights of linear interpolation."""
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        up.weight.copy_(line[:, None, None] * line[:, None] * line)  # type: ignore[operator]
