"""The V-Net of MONAI: one convolution less at the bottom, batch normalisation, ELU and dropout.

Source: Milletari et al. 2016 as implemented in PyTorch by M. Macy and from there in MONAI 1.6, whose blocks are used.
Convolutions per stage 1-1-2-3-2 down and 2-2-1-1 up, a 5-wide and a 1-wide output; convolutions before a normalisation
have no bias on the way down. With 1 channel and 2 classes 45,597,898 parameters: another net than `vnet`.
"""

from functools import partial
from typing import Annotated, Any

import torch
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition, VNet
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.shapes import check_input

_ELU: tuple[str, dict[str, Any]] = ("elu", {"inplace": True})


class ScaledVNet(VNet):
    """MONAI's VNet in any width, which refuses inputs it would fail on half-way.

    At width 16 its parameters, their names, their initial values and its output are MONAI's. In 2D dropout takes whole
    channels, as in 3D; MONAI's own default would take whole images there.
    """

    divisor: tuple[int, ...]

    def __init__(self, dimensions: int, channels: int, classes: int, *, width: int, dropout: float) -> None:
        # MONAI's __init__ has the width fixed; its forward only needs these names.
        nn.Module.__init__(self)
        down = partial(DownTransition, dimensions, act=_ELU, dropout_dim=dimensions)
        up = partial(UpTransition, dimensions, act=_ELU, dropout_dim=dimensions)
        self.in_tr = InputTransition(dimensions, channels, width, _ELU)
        self.down_tr32 = down(width, 1)
        self.down_tr64 = down(2 * width, 2)
        self.down_tr128 = down(4 * width, 3, dropout_prob=dropout)
        self.down_tr256 = down(8 * width, 2, dropout_prob=dropout)
        self.up_tr256 = up(16 * width, 16 * width, 2, dropout_prob=(dropout, dropout))
        self.up_tr128 = up(16 * width, 8 * width, 2, dropout_prob=(dropout, dropout))
        self.up_tr64 = up(8 * width, 4 * width, 1, dropout_prob=(None, dropout))
        self.up_tr32 = up(4 * width, 2 * width, 1, dropout_prob=(None, dropout))
        self.out_tr = OutputTransition(dimensions, 2 * width, classes, _ELU)
        self.divisor = (16,) * dimensions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError unless the sides are multiples of `divisor`."""
        check_input(x.shape[2:], self.divisor)
        logits: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return logits


@described(
    NetCard(
        title="V-Net (MONAI)",
        source="Milletari et al. 2016, 3DV, arXiv 1606.04797; MONAI 1.6",
        suited="Comparing with results that were made with MONAI's V-Net.",
        federation="Batch normalisation's running statistics cross as rounds.buffers says; an update of 182 MB at the "
        "default width.",
        receptive_field=396,
        small={"width": 2, "dropout": 0.0},
    )
)
def vnet_monai(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=1, le=64)] = 16,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
) -> nn.Module:
    """Build the net; its normalisation is always batch.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one; a multiple of the image channels.
        dropout: Share of channels that are set to 0 in training, at the lowest levels and in all skips.

    Raises:
        StudyError: The width is no multiple of the image channels.
    """
    if width % channels:
        raise StudyError(
            f"net.width: vnet_monai repeats the image's {channels} channels to its width, which {width} is no multiple "
            f"of; the next that is is {-(-width // channels) * channels}. Net vnet takes any number of channels."
        )
    return ScaledVNet(dimensions, channels, classes, width=width, dropout=dropout)
