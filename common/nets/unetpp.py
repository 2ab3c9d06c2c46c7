"""UNet++: a U-Net whose skips are filled with nodes of their own, supervised at four depths; MONAI's net.

Source: Zhou Z. et al. 2018; MONAI 1.6 holds the net (5 levels, leaky ReLU of slope 0.1, biases everywhere, the nodes
of the first row keep the channels of what they up-sample). Its four outputs, at full resolution, have equal weights in
training, as in the paper. In evaluation the deepest one alone counts (the paper also averages the four).
"""

from typing import Annotated, Any

import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import Norm
from common.nets.shapes import check_input

LEVELS = 5
_NORMS: dict[str, Any] = {
    "instance": ("instance", {"affine": True}),
    "batch": "batch",
    "group": ("group", {"num_groups": 4}),
    "none": None,
}


class SupervisedUNetPlusPlus(BasicUNetPlusPlus):  # type: ignore[misc,unused-ignore]
    """MONAI's UNet++ with the contract of our nets."""

    divisor: tuple[int, ...]
    head_weights: tuple[float, ...]
    norm: Norm

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training with deep supervision the four outputs, the deepest node's first.

        Raises:
            ValueError: The lowest level would have no voxel, or a single one to normalise.
        """
        check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
        outputs: list[torch.Tensor] = super().forward(x)
        return outputs[::-1] if self.training and self.deep_supervision else outputs[-1]


@described(
    NetCard(
        title="UNet++",
        source="Zhou Z. et al. 2018, MICCAI DLMIA, arXiv 1807.10165",
        suited="Structures of several sizes at once; needs about three times the memory of a U-Net.",
        federation=(
            "No buffers unless `norm: batch`; the three auxiliary heads (a few hundred numbers) are part of the "
            "update, 37 MB in 2D at the default width."
        ),
        receptive_field=204,
        small={"width": 4},
    )
)
def unetpp(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=4, le=256, multiple_of=4)] = 32,
    norm: Norm = "instance",
    deep_supervision: bool = True,
) -> nn.Module:
    """Build the net: 5 levels.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        norm: Normalisation after each 3-wide convolution (`group`: four groups).
        deep_supervision: Also supervise the three shallower nodes at full resolution.
    """
    net = SupervisedUNetPlusPlus(
        dimensions,
        channels,
        classes,
        features=[*(width * 2**level for level in range(LEVELS)), width],
        norm=_NORMS[norm],
        deep_supervision=deep_supervision,
    )
    if deep_supervision:
        net.head_weights = (0.25,) * 4
    else:
        # Heads that no loss sees would keep their initial weights and travel with every update.
        net.final_conv_0_1 = net.final_conv_0_2 = net.final_conv_0_3 = nn.Identity()
    net.divisor, net.norm = (2 ** (LEVELS - 1),) * dimensions, norm
    return net
