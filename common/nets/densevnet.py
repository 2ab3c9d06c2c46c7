"""DenseVNet: three dense feature stacks at half, quarter and eighth resolution, joined at half resolution.

Source: Gibson et al. 2018; NiftyNet's `dense_vnet` with its defaults decides the details:

    image   mean-pooled 3³ with stride 2 and normalised; beside it a 5³ convolution of stride 2 to 24 maps with norm
    stacks  5, 10 and 10 units of 3³ convolution, norm, ReLU to 4, 8 and 16 maps; all units see all maps before them
    down    after the first and second stack: 3³ convolution of stride 2 to 24 maps with norm and ReLU
    skips   of each stack: 3³ convolution to 12, 24 and 24 maps with norm and ReLU, brought to half resolution
    head    the skips and the pooled image: 3³ convolution, brought to full resolution

Only the head has biases. With one channel that makes 866,192 parameters for 2 classes and 877,728 for 9, and 786 more
for the norms' scale and shift; strided steps pad as TensorFlow's SAME does, more behind than in front.

Batch-wise spatial dropout: after each unit but the last of a stack, half of the maps are left out, the same in all
images of the batch. NiftyNet does not compute those at all; here they are 0 and the others are doubled, so that the
next convolution sees sums of the same size in evaluation. NiftyNet also drops single voxels after its skips and stacks,
and distorts the image inside the net, which is a matter of augmentation here.

The spatial prior of the paper is a learnt map of log-probabilities on a coarse grid over the field of view, here one
per class, added to the logits. It means something only where a patch always shows the same region, e.g. the whole
abdomen.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, described
from common.nets.dense import DenseBlock
from common.nets.layers import Norm, he_normal, make_norm, resize
from common.nets.shapes import check_input, need_3d

UNITS = (5, 10, 10)


@described(
    NetCard(
        title="DenseVNet",
        source="Gibson et al. 2018, IEEE Transactions on Medical Imaging, doi:10.1109/TMI.2018.2806309",
        suited="Many abdominal organs in CT at once, with little memory.",
        federation="3.5 MB in fp32: a small update; batch normalisation's statistics cross as "
        "rounds.buffers says. With a prior, sites must crop alike.",
        receptive_field=309,
        dimensions=(3,),
        small={"growth": 2},
    )
)
class DenseVNet(nn.Module):
    """DenseVNet of Gibson et al. 2018.

    Args:
        dimensions: 3.
        channels: Image channels.
        classes: Labels and background.
        growth: Maps that each unit of the first stack adds (4 in the paper); all other widths are multiples of it.
        norm: Normalisation between convolution and ReLU (the paper has `batch`); all have a learnt scale and shift.
        dropout: Share of a unit's maps that are left out in training, the same in the whole batch (0.5 in the paper).
        prior: Side of the learnt spatial prior's grid (12 in the paper); 0 for none.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        growth: Annotated[int, Field(ge=1, le=64)] = 4,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        prior: Annotated[int, Field(ge=0, le=64)] = 0,
    ) -> None:
        super().__init__()
        need_3d(dimensions, "DenseVNet")
        width = 6 * growth
        # At even sizes the windows of SAME pooling start at the first voxel, and only the last ones reach outside.
        self.image = nn.Sequential(nn.AvgPool3d(3, 2, ceil_mode=True), make_norm(norm, 3, channels))
        self.stem = nn.Sequential(_conv(channels, width, norm, kernel=5, stride=2), make_norm(norm, 3, width))
        stacks, skips, downs = [], [], []
        before = channels + width
        for level, (units, skip) in enumerate(zip(UNITS, (3, 6, 6), strict=True)):
            new = growth * 2**level
            stacks.append(_stack(before, new, units, norm, dropout))
            maps = before + units * new
            skips.append(_unit(maps, skip * growth, norm))
            if level < len(UNITS) - 1:
                downs.append(_unit(maps, width, norm, stride=2))
            before = width
        self.stacks, self.skips, self.downs = nn.ModuleList(stacks), nn.ModuleList(skips), nn.ModuleList(downs)
        self.head = nn.Conv3d(channels + 15 * growth, classes, 3, padding=1)
        self.prior = nn.Parameter(torch.zeros(1, classes, prior, prior, prior)) if prior else None
        self.divisor = (8, 8, 8)
        self.norm = norm
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`.

        Raises:
            ValueError: A side is no multiple of 8, or the lowest level would have a single voxel to normalise.
        """
        size = x.shape[2:]
        check_input(size, self.divisor, more_than_one=self.norm != "none")
        image = self.image(x)
        joined = [image]
        x = torch.cat((image, self.stem(x)), dim=1)
        for level, (stack, skip) in enumerate(zip(self.stacks, self.skips, strict=True)):
            maps = stack(x)
            joined.append(resize(skip(maps), image.shape[2:]))
            if level < len(self.downs):
                x = self.downs[level](maps)
        logits: torch.Tensor = self.head(torch.cat(joined, dim=1))
        if self.prior is not None:
            logits = logits + resize(self.prior, logits.shape[2:])
        return resize(logits, size)


class BatchwiseDropout(nn.Module):
    """In training, leaves out a fixed share of the maps, drawn anew each time, but the same for the whole batch.

    Args:
        rate: Share of the maps that is left out, rounded down.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` `(B, C, *S)` with some maps 0 and the others scaled to keep the expected sum."""
        if not self.training:
            return x
        maps = x.shape[1]
        kept = math.ceil((1 - self.rate) * maps)
        # The rank of each map in a random order: exactly `kept` of them stay.
        stays = torch.rand(maps, device=x.device).argsort().argsort() < kept
        return x * (stays * (maps / kept)).to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))


def _stack(before: int, growth: int, units: int, norm: Norm, dropout: float) -> DenseBlock:
    rates = [dropout] * (units - 1) + [0.0]
    return DenseBlock(_unit(before + i * growth, growth, norm, dropout=rate) for i, rate in enumerate(rates))


def _unit(before: int, after: int, norm: Norm, *, stride: int = 1, dropout: float = 0.0) -> nn.Sequential:
    layers = [_conv(before, after, norm, kernel=3, stride=stride), make_norm(norm, 3, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([BatchwiseDropout(dropout)] if dropout else []))


def _conv(before: int, after: int, norm: Norm, *, kernel: int, stride: int) -> nn.Module:
    bias = norm == "none"
    return (
        _Strided(before, after, kernel, bias=bias)
        if stride > 1
        else nn.Conv3d(before, after, kernel, padding=kernel // 2, bias=bias)
    )


class _Strided(nn.Conv3d):
    """A convolution of stride 2 at even sizes, padded as TensorFlow's SAME: one voxel more behind than in front."""

    def __init__(self, before: int, after: int, kernel: int, *, bias: bool) -> None:
        super().__init__(before, after, kernel, stride=2, bias=bias)
        self.pads = [(kernel - 2) // 2, (kernel - 1) // 2] * 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, self.pads))
