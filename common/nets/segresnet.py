"""SegResNet: a residual encoder with a light decoder, 19 MB at its default width.

Source: Myronenko 2018, without the auto-encoder branch; MONAI 1.6 holds the net.
"""

from typing import Annotated, Any, Literal

import torch
from monai.networks.nets.segresnet import SegResNet
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.shapes import check_input

_NORMS: dict[str, str | tuple[str, dict[str, Any]]] = {
    "group": ("GROUP", {"num_groups": 8}),
    "instance": ("INSTANCE", {"affine": True}),
    "batch": "BATCH",
}
_UPSAMPLE = {"linear": "nontrainable", "deconv": "deconv"}


class CheckedSegResNet(SegResNet):
    """MONAI's SegResNet that refuses inputs it would fail on half-way."""

    divisor: tuple[int, ...]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError unless the sides are multiples of `divisor`."""
        check_input(x.shape[2:], self.divisor, more_than_one=True)
        logits: torch.Tensor = super().forward(x)
        return logits


@described(
    NetCard(
        title="SegResNet",
        source="Myronenko 2018, BrainLes, arXiv 1810.11654",
        suited="3D with a small update: 19 MB at the default width.",
        federation="No buffers unless `norm: batch`.",
        receptive_field=245,
        small={"width": 8},
    )
)
def segresnet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=8, le=64, multiple_of=8)] = 16,
    norm: Literal["group", "instance", "batch"] = "group",
    upsample: Literal["linear", "deconv"] = "linear",
) -> nn.Module:
    """Build the net: 4 levels, residual blocks 1-2-2-4 down and 1-1-1 up.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        norm: Normalisation before each activation; only `batch` has buffers.
        upsample: `linear` as published (its gradient on CUDA is not reproducible to the bit) or learnt
            `deconv`.
    """
    net = CheckedSegResNet(
        spatial_dims=dimensions,
        init_filters=width,
        in_channels=channels,
        out_channels=classes,
        norm=_NORMS[norm],
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
        upsample_mode=_UPSAMPLE[upsample],
    )
    net.divisor = (8,) * dimensions
    return net
