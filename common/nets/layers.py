"""Layers by dimension, and the few operations that several nets share."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

Norm = Literal["instance", "batch", "group", "none"]

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
_INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


def make_norm(norm: Norm, dimensions: int, channels: int) -> nn.Module:
    """The normalisation of a study's word, with learnt scale and shift; only `batch` has running statistics."""
    if norm == "instance":
        return _INSTANCE[dimensions](channels, affine=True)
    if norm == "batch":
        return _BATCH[dimensions](channels)
    # Eight groups, or fewer where the channels cannot be dealt out to eight.
    return nn.GroupNorm(math.gcd(8, channels), channels) if norm == "group" else nn.Identity()


def conv_unit(
    dimensions: int,
    before: int,
    after: int,
    *,
    norm: Norm,
    kernel: int = 3,
    dilation: int = 1,
    pad: bool = True,
) -> nn.Sequential:
    """Convolution with bias, normalisation and ReLU; with `pad` and an odd kernel the size is kept."""
    padding = dilation * (kernel // 2) if pad else 0
    return nn.Sequential(
        CONV[dimensions](before, after, kernel, padding=padding, dilation=dilation),
        make_norm(norm, dimensions, after),
        nn.ReLU(inplace=True),
    )


def he_normal(module: nn.Module) -> None:
    """For `net.apply`: convolutions as He et al. 2015 (doi:10.1109/ICCV.2015.123), biases 0."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """`x` `(B, C, *S)` by linear interpolation at `size`, voxel centres kept in place."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode=_LINEAR[x.ndim - 2], align_corners=False)


def crop(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The centre of `x` in the given spatial size."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def mirror(x: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """`x` continued along `axis` by reflection at its first and last voxel, as often as needed."""
    n = x.shape[axis]
    period = max(1, 2 * (n - 1))
    index = torch.arange(-before, n + after, device=x.device) % period
    return x.index_select(axis, torch.minimum(index, period - index) if n > 1 else index)
