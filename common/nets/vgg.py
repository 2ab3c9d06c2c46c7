"""VGG-16's thirteen convolutions, the encoder of the first fully convolutional nets.

Source: Simonyan & Zisserman 2015 (arXiv 1409.1556), configuration D: 3-wide convolutions with bias and ReLU, 2-2-3-3-3
of them in widths 64, 128, 256, 512, 512; the pooling between the stages is the nets' own. With 3 channels in 2D
14,714,688 parameters.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from common.nets.layers import Norm, conv_unit

_CONVOLUTIONS = (2, 2, 3, 3, 3)
_LINEAR = {2: "bilinear", 3: "trilinear"}


def vgg_widths(width: int) -> list[int]:
    """Channels of the five stages, from that of the first."""
    return [width * factor for factor in (1, 2, 4, 8, 8)]


def vgg_stages(
    dimensions: int,
    channels: int,
    *,
    width: int,
    norm: Norm,
    dilations: Sequence[int] = (1, 1, 1, 1, 1),
    pad: bool = True,
) -> nn.ModuleList:
    """The five stages without the pooling between them.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        width: Channels of the first stage, 64 in the paper.
        norm: Normalisation between convolution and ReLU (the paper has none).
        dilations: Dilation of each stage's convolutions.
        pad: Whether convolutions keep the size.
    """
    stages = nn.ModuleList()
    before = channels
    for after, convolutions, dilation in zip(vgg_widths(width), _CONVOLUTIONS, dilations, strict=True):
        layers: list[nn.Module] = []
        for _ in range(convolutions):
            layers += conv_unit(dimensions, before, after, norm=norm, dilation=dilation, pad=pad)
            before = after
        stages.append(nn.Sequential(*layers))
    return stages


def enlarge(x: torch.Tensor, factor: int, size: Sequence[int]) -> torch.Tensor:
    """`x` by linear interpolation `factor` times as large, cut at `size`.

    The first voxel of `x` covers the first `factor` voxels of the result, so that this undoes a chain of poolings that
    rounds up, whatever the size it began with.
    """
    if factor > 1:
        x = F.interpolate(x, scale_factor=factor, mode=_LINEAR[x.ndim - 2], align_corners=False)
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x
