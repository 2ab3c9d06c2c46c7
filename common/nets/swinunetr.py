"""Swin UNETR: a transformer of shifted windows as encoder, residual convolutions as decoder.

Source: Hatamizadeh et al. 2022; MONAI 1.6 holds the net. Windows of 7 tokens per axis, 2 blocks and 3, 6, 12 and 24
heads per stage, tokens of 2 voxels per axis. Width 48 with 4 channels and 3 classes has 62,191,941 parameters (the
paper says 61.98 M). The width must be a multiple of 12, so that even the narrowest net has 4 million in 3D.

Each attention layer keeps a table of positions, 0.9 million whole numbers in 3D. It follows from the window's size
alone; here it is no part of the state, so it does not cross.
"""

from typing import Annotated, Any, Literal

import torch
from monai.networks.nets.swin_unetr import SwinUNETR, WindowAttention
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.shapes import check_input

_NORMS: dict[str, str | tuple[str, dict[str, Any]]] = {
    "instance": "instance",
    "batch": "batch",
    "group": ("group", {"num_groups": 4}),
}
_HALVINGS = 5


class CheckedSwinUNETR(SwinUNETR):
    """MONAI's Swin UNETR that refuses inputs it would fail on half-way."""

    divisor: tuple[int, ...]
    norm: str

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError unless the sides are multiples of `divisor`."""
        check_input(x.shape[2:], self.divisor, more_than_one=self.norm == "instance")
        logits: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return logits


@described(
    NetCard(
        title="Swin UNETR",
        source="Hatamizadeh et al. 2022, BrainLes, arXiv 2201.01266",
        suited="Much data, and structures that are told apart by what lies far from them.",
        federation="No buffers unless `norm: batch`; an update in 3D has 63 MB, at the paper's width 249 MB.",
        receptive_field=None,
        small={"width": 12, "norm": "group"},
    )
)
def swinunetr(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=12, le=96, multiple_of=12)] = 24,
    norm: Literal["instance", "batch", "group"] = "instance",
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Build the net.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first stage, doubled at each further one (48 in the paper).
        norm: Normalisation of the convolutions; the transformer's own is over channels. Only `batch` has buffers.
        drop_path: How likely a branch of the last transformer block is left out in training, less in earlier ones.
    """
    device = torch.get_default_device()
    # MONAI reads numbers off tensors while it builds, which the meta device cannot give.
    with torch.device("cpu"), torch.random.fork_rng(devices=[], enabled=device.type == "meta"):
        net = CheckedSwinUNETR(
            in_channels=channels,
            out_channels=classes,
            feature_size=width,
            norm_name=_NORMS[norm],
            dropout_path_rate=drop_path,
            spatial_dims=dimensions,
        )
    for layer in net.modules():
        if isinstance(layer, WindowAttention):
            table = layer.get_buffer("relative_position_index")
            del layer.relative_position_index
            layer.register_buffer("relative_position_index", table, persistent=False)
    net.divisor, net.norm = (2**_HALVINGS,) * dimensions, norm
    return net.to(device)
