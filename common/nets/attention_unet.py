"""Attention U-Net: gates on the skips pass only what the lower level asks for; MONAI's net.

Source: Oktay et al. 2018; MONAI 1.6 holds the net: strided convolutions between the levels, gates between features of
equal resolution, up-convolutions 3 wide. Batch normalisation and ReLU follow every convolution, and the gates have
batch normalisation too; but the convolution that merges a gated skip has MONAI's own defaults, instance normalisation
without scale and shift, and a ReLU with learnt slope. With 64 to 1024 channels, 3 image channels, 1 class in 2D there
are 31,740,337 parameters. It is not the net of the same name at github.com/LeeJunHyun/Image_Segmentation (34,878,573).
"""

from typing import Annotated, Literal

import torch
from monai.networks.nets.attentionunet import AttentionUnet
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from common.cards import NetCard, described
from common.nets.layers import Norm, make_norm
from common.nets.shapes import check_input


class CheckedAttentionUnet(AttentionUnet):  # type: ignore[misc,unused-ignore]
    """MONAI's AttentionUnet that refuses inputs it would fail on half-way."""

    divisor: tuple[int, ...]
    norm: Norm | Literal["mixed"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError unless the sides are multiples of `divisor`."""
        check_input(x.shape[2:], self.divisor, more_than_one=self.norm != "none")
        logits: torch.Tensor = super().forward(x)
        return logits


@described(
    NetCard(
        title="Attention U-Net",
        source="Oktay et al. 2018, MIDL, arXiv 1804.03999",
        suited="Organs of varying place and size in a wide field of view, such as the pancreas in CT.",
        federation=(
            "Running statistics at the default `norm: mixed`, in the gates too, cross as rounds.buffers says; an "
            "update of 127 MB in 2D at the default width."
        ),
        receptive_field=143,
        small={"width": 8, "levels": 3},
    )
)
def attention_unet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 64,
    levels: Annotated[int, Field(ge=2, le=8)] = 5,
    norm: Norm | Literal["mixed"] = "mixed",
) -> nn.Module:
    """Build the net.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        levels: Resolutions.
        norm: Normalisation after each convolution and within the gates; `mixed` is MONAI's: batch, and instance where
            a skip is merged.
    """
    net = CheckedAttentionUnet(
        dimensions,
        channels,
        classes,
        channels=[width * 2**level for level in range(levels)],
        strides=[2] * (levels - 1),
    )
    if norm != "mixed":
        _exchange(net, norm, dimensions)
    net.divisor, net.norm = (2 ** (levels - 1),) * dimensions, norm
    return net


def _exchange(net: nn.Module, norm: Norm, dimensions: int) -> None:
    """Put `norm` wherever MONAI, which offers no choice, normalises."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, _NormBase):
                setattr(module, name, make_norm(norm, dimensions, child.num_features))
