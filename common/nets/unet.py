"""The original U-Net and the 3D U-Net, in 2D or 3D.

Sources: Ronneberger et al. 2015, Çiçek et al. 2016. The flavours differ in three points:

    ronneberger   both convolutions of a level have its width;
                  the up-convolution halves the channels and has a bias
    cicek         the first convolution of a level has half its width, so that channels double before pooling;
                  the up-convolution keeps the channels and has no bias
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.nets.shapes import check_input

Norm = Literal["instance", "batch", "group", "none"]
_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class UNet(nn.Module):
    """U-Net of 3-wide convolutions with ReLU, max-pooling by 2 and concatenated skips.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        flavour: See the module's head.
        width: Channels of the first level, doubled at each further one (64 in both papers).
        levels: Resolutions (5 in the paper of 2015, 4 in that of 2016).
        norm: Normalisation between convolution and ReLU (the paper of 2015 has none, that of 2016 `batch`).
        padding: `same` pads each convolution with zeros. `valid` pads none: the image is mirrored at its
            border just far enough, as in the papers' overlap-tile scheme, which costs time and memory.

    With `same`, sides that are no multiple of `divisor` lose their last rows in pooling; the way up repeats
    its last row to fit the skip.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        flavour: Literal["ronneberger", "cicek"] = "ronneberger",
        width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 64,
        levels: Annotated[int, Field(ge=2, le=8)] = 5,
        norm: Norm = "instance",
        padding: Literal["same", "valid"] = "same",
    ) -> None:
        super().__init__()
        classic = flavour == "ronneberger"
        widths = [width * 2**level for level in range(levels)]
        block = partial(_double, dimensions, norm=norm, pad=padding == "same")
        inputs = [channels, *widths[:-1]]
        self.down = nn.ModuleList(block(i, w if classic else w // 2, w) for i, w in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(
            UpBlock(_UP[dimensions](2 * w, w if classic else 2 * w, 2, 2, bias=classic), block, skip=w, width=w)
            for w in reversed(widths[:-1])
        )
        self.pool = _POOL[dimensions](2)
        self.head = _CONV[dimensions](width, classes, 1)
        self.levels, self.padding, self.norm = levels, padding, norm
        self.divisor = ((2 ** (levels - 1)) if padding == "same" else 1,) * dimensions
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError if the lowest level would have no voxel, or one to normalise."""
        if self.padding == "same":
            check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
            return self.unpadded(x)
        size = x.shape[2:]
        outer = [self.valid_sizes(n) for n in size]
        for axis, (n, (before, _)) in enumerate(zip(size, outer, strict=True), start=2):
            x = mirror(x, axis, (before - n) // 2, before - n - (before - n) // 2)
        logits = self.unpadded(x)
        return _crop(logits, size)

    def unpadded(self, x: torch.Tensor) -> torch.Tensor:
        """The bare net: with `valid` the output is smaller than the input (572 gives 388 at 5 levels)."""
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        logits: torch.Tensor = self.head(x)
        return logits

    def valid_sizes(self, side: int) -> tuple[int, int]:
        """The smallest (input, output) side of the bare `valid` net whose output covers `side`."""
        # Two convolutions take 4 off each level; going down that is halved at each step, going up doubled.
        halved = 2 ** (self.levels - 1)
        lost = 4 * (halved - 1)
        bottom = -(-(side + lost) // halved)
        return halved * (bottom + 4) + lost, halved * bottom - lost


class UpBlock(nn.Module):
    """One level of the way up: up-convolution, skip fitted and concatenated, two convolutions.

    Args:
        up: The up-convolution.
        block: Makes the two convolutions from (input, middle, output) channels.
        skip: Channels of the skip.
        width: Channels of the output.
    """

    def __init__(self, up: nn.Module, block: Callable[[int, int, int], nn.Module], *, skip: int, width: int) -> None:
        super().__init__()
        self.up = up
        self.block = block(skip + int(up.out_channels), width, width)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Features at the skip's resolution, or cropped where the convolutions are valid."""
        x = self.up(x)
        missing = [n - m for n, m in zip(skip.shape[2:], x.shape[2:], strict=True)]
        if any(missing) and max(missing) <= 1:
            x = F.pad(x, [p for n in reversed(missing) for p in (0, n)], mode="replicate")
        features: torch.Tensor = self.block(torch.cat((_crop(skip, x.shape[2:]), x), dim=1))
        return features


def mirror(x: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """`x` continued along `axis` by reflection at its first and last voxel, as often as needed."""
    n = x.shape[axis]
    period = max(1, 2 * (n - 1))
    index = torch.arange(-before, n + after, device=x.device) % period
    return x.index_select(axis, torch.minimum(index, period - index) if n > 1 else index)


def _crop(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """The centre of `x` in the given spatial size."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def _double(dimensions: int, before: int, middle: int, after: int, *, norm: Norm, pad: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in ((before, middle), (middle, after)):
        layers += [
            _CONV[dimensions](i, o, 3, padding=int(pad)),
            _norm(norm, dimensions, o),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _norm(norm: Norm, dimensions: int, channels: int) -> nn.Module:
    if norm == "instance":
        return _INSTANCE[dimensions](channels, affine=True)
    if norm == "batch":
        return _BATCH[dimensions](channels)
    # Eight groups, or fewer where the channels cannot be dealt out to eight.
    return nn.GroupNorm(math.gcd(8, channels), channels) if norm == "group" else nn.Identity()


def _initialise(module: nn.Module) -> None:
    """He et al. 2015, as the paper of 2015 asks; biases 0."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
