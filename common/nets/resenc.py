"""nnU-Net's residual-encoder U-Net (ResEnc): deep residual encoder, light decoder.

Source: Isensee et al. 2024. A stem convolution, then per level 1-3-4-6-6-... residual blocks, whose first one halves
the resolution; the decoder has one convolution per level. Its presets M, L and XL are this one net: what nnU-Net
varies between them is the memory it plans for, hence the patch, and with a small patch the number of levels. Size
`large` has the levels and widths that L has for large 3D patches, or 2D ones of 512 pixels and more.

What decides the count: convolutions and up-convolutions have a bias, the 1-wide projections of the shortcuts have
none; scale and shift in each normalisation; a head at every level of the decoder. The shortcut of a block that halves
takes the mean of what is halved (ResNet-D); the last normalisation of each block starts at 0, so that at first each
block passes on its shortcut alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.dynunet import Steps, kernels
from common.nets.layers import CONV, MEAN_POOL, UP, make_norm
from common.nets.shapes import check_input

# Residual blocks of each level, as far down as one goes.
_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6)
_SLOPE = 0.01
Axes = tuple[int, ...]
NormOfResEnc = Literal["instance", "batch", "group"]


class _Size(NamedTuple):
    width: int
    widest: int
    levels: int


_SIZES = {
    ("small", 3): _Size(8, 32, 3),
    ("medium", 3): _Size(32, 256, 4),
    ("large", 3): _Size(32, 320, 6),
    ("small", 2): _Size(8, 32, 4),
    ("medium", 2): _Size(32, 256, 6),
    ("large", 2): _Size(32, 512, 8),
}


@described(
    NetCard(
        title="Residual-encoder U-Net (nnU-Net ResEnc)",
        source="Isensee et al. 2024, MICCAI, arXiv 2404.09556",
        suited="Where accuracy comes first and the GPU has 10 GB or more; `medium` is the cheaper half-way house.",
        federation="No buffers unless `norm: batch`. `large` in 3D is an update of 409 MB, 22 times SegResNet's; the "
        "heads of deep supervision are part of it.",
        receptive_field=1441,
        small={"size": "small"},
    )
)
class ResEncUNet(nn.Module):
    """U-Net with residual blocks in the encoder and one convolution per level in the decoder.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        size: `small` trains on a CPU, `medium` on any GPU, `large` is nnU-Net's ResEnc L (a GPU of 24 GB for its
            3D patches).
        norm: Normalisation after each convolution; all have a learnt scale and shift, only `batch` has buffers.
        deep_supervision: Also supervise all lower resolutions of the decoder.
        strides: Step from each level to the next, per axis 1 or 2, e.g. `[[2, 2, 1], [2, 2, 2], [2, 2, 2]]` for
            volumes with thick slices. Their number sets the number of levels. An axis that is first left alone gets
            kernels of width 1 until the level before its first halving, as in nnU-Net.

    Raises:
        StudyError: A step of `strides` has not one number per axis.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        size: Literal["small", "medium", "large"] = "medium",
        norm: NormOfResEnc = "instance",
        deep_supervision: bool = True,
        strides: Steps | None = None,
    ) -> None:
        super().__init__()
        width, widest, levels = _SIZES[size, dimensions]
        steps = tuple(strides) if strides is not None else ((2,) * dimensions,) * (levels - 1)
        if any(len(step) != dimensions for step in steps):
            raise StudyError(f"net.strides: each step needs {dimensions} numbers, one per axis: {list(steps)}")
        widths = [min(width * 2**level, widest) for level in range(len(steps) + 1)]
        self.divisor = tuple(math.prod(step[axis] for step in steps) for axis in range(dimensions))
        self.stem, self.down = encoder(channels, widths, steps, norm)
        self.up = nn.ModuleList(
            Up(below, here, step, kernel, norm)
            for (here, below), step, kernel in zip(pairwise(widths), steps, kernels(steps, dimensions), strict=False)
        )
        supervised = len(self.up) if deep_supervision else 1
        self.heads = nn.ModuleList(CONV[dimensions](w, classes, 1) for w in widths[:supervised])
        self.apply(_start)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training with deep supervision a list, the full resolution first.

        Raises:
            ValueError: A side is no multiple of `divisor`, or the lowest level would have a single voxel.
        """
        check_input(x.shape[2:], self.divisor)
        x = self.stem(x)
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        logits: list[torch.Tensor] = []
        for i in reversed(range(len(self.up))):
            x = self.up[i](x, skips[i])
            if i == 0 or (self.training and i < len(self.heads)):
                logits.insert(0, self.heads[i](x))
        return logits if self.training and len(self.heads) > 1 else logits[0]


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; the first may halve, the shortcut then takes means.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        step: Stride per axis.
        kernel: Width of the convolutions per axis.
        norm: Normalisation after each convolution.
    """

    def __init__(self, before: int, after: int, step: Axes, kernel: Axes, norm: NormOfResEnc) -> None:
        super().__init__()
        dimensions = len(step)
        self.first = _unit(before, after, kernel, norm, step=step)
        self.second, self.norm, _ = _unit(after, after, kernel, norm)
        shortcut: list[nn.Module] = []
        if max(step) > 1:
            shortcut.append(MEAN_POOL[dimensions](step, step))  # type: ignore[arg-type]
        if before != after:
            shortcut += [CONV[dimensions](before, after, 1, bias=False), make_norm(norm, dimensions, after)]
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features at the resolution of the input divided by the stride."""
        features: torch.Tensor = self.activation(self.norm(self.second(self.first(x))) + self.shortcut(x))
        return features


class Up(nn.Module):
    """One level of the decoder: up-convolution, skip concatenated, one convolution.

    Args:
        below: Channels of the level below.
        here: Channels of the skip and of the output.
        step: Step between the two levels per axis.
        kernel: Width of the convolution per axis.
        norm: Normalisation after the convolution.
    """

    def __init__(self, below: int, here: int, step: Axes, kernel: Axes, norm: NormOfResEnc) -> None:
        super().__init__()
        self.up = UP[len(step)](below, here, step, step)  # type: ignore[arg-type]
        self.unit = _unit(2 * here, here, kernel, norm)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Features at the skip's resolution."""
        features: torch.Tensor = self.unit(torch.cat((self.up(x), skip), dim=1))
        return features


def encoder(
    channels: int, widths: Sequence[int], steps: Sequence[Axes], norm: NormOfResEnc
) -> tuple[nn.Sequential, nn.ModuleList]:
    """The stem and the levels, the finest first: level i has `widths[i]` channels and comes after `steps[i - 1]`."""
    dimensions = len(steps[0])
    shapes = kernels(tuple(steps), dimensions)
    levels = []
    before = widths[0]
    for width, step, kernel, blocks in zip(widths, ((1,) * dimensions, *steps), shapes, _BLOCKS, strict=False):
        first = ResidualBlock(before, width, step, kernel, norm)
        more = (ResidualBlock(width, width, (1,) * dimensions, kernel, norm) for _ in range(blocks - 1))
        levels.append(nn.Sequential(first, *more))
        before = width
    return _unit(channels, widths[0], shapes[0], norm), nn.ModuleList(levels)


def _unit(before: int, after: int, kernel: Axes, norm: NormOfResEnc, *, step: Axes | int = 1) -> nn.Sequential:
    padding: Any = tuple(k // 2 for k in kernel)
    convolution = CONV[len(kernel)](before, after, kernel, step, padding)  # type: ignore[arg-type]
    return nn.Sequential(convolution, make_norm(norm, len(kernel), after), nn.LeakyReLU(_SLOPE, inplace=True))


def _start(module: nn.Module) -> None:
    """nnU-Net's initial values: convolutions as He et al. 2015, biases 0, each block's last scale 0."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        for parameter in module.norm.parameters():
            nn.init.zeros_(parameter)
