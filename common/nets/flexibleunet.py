"""EfficientNet as encoder of a U-Net: many channels at few parameters, batch normalisation throughout.

Source: Tan & Le 2019 for the encoder; MONAI 1.6 holds both parts (FlexibleUNet). Weights start at random: none are
downloaded. The encoder's classifier and the convolution before it, which a segmentation never uses, are left out:
with `b4`, 3 channels and 2 classes MONAI counts 21,446,098 parameters, of which 18,846,698 are here.

Zeros are padded as for the image size for which a backbone was made, and a last row is not always met by the next
stride; sides that are multiples of 32 always fit. Squeeze and excitation looks at the whole input, so there is no
receptive field to state.
"""

from typing import Annotated, Literal

import torch
from monai.networks.nets.efficientnet import EfficientNet, EfficientNetBNFeatures, efficientnet_params
from monai.networks.nets.flexible_unet import FlexibleUNet, SegmentationHead, UNetDecoder
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.cards import NetCard, described
from common.nets.layers import Norm, make_norm
from common.nets.shapes import check_input

# Repeats, kernel, stride, expansion, input and output channels, squeeze of each stage of B0 (Tan & Le 2019, table 1).
_STAGES = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)
_DECODER = (256, 128, 64, 32, 16)
_HALVINGS = 5


class Encoder(EfficientNet):
    """EfficientNet up to its last block.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        backbone: "b0" to "b7".
        width: Factor on the backbone's own number of channels.
        drop: How likely the last block is skipped in training, less for earlier ones.
    """

    def __init__(self, dimensions: int, channels: int, backbone: str, width: float, drop: float) -> None:
        wide, deep, side, _, _ = efficientnet_params[f"efficientnet-{backbone}"]
        super().__init__(
            [*_STAGES],
            dimensions,
            channels,
            num_classes=1,
            width_coefficient=wide * width,
            depth_coefficient=deep,
            image_size=side,
            drop_connect_rate=drop,
        )
        self.widths = [self._blocks_args[stage - 1].output_filters for stage in self.extract_stacks]
        for unused in ("_conv_head", "_conv_head_padding", "_bn1", "_avg_pooling", "_dropout", "_fc"):
            delattr(self, unused)

    # Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input, a list.
    forward = EfficientNetBNFeatures.forward


class EfficientUNet(FlexibleUNet):
    """MONAI's FlexibleUNet around `encoder`.

    Args:
        encoder: Gives the features.
        classes: Labels and background.
        decoder: Channels of the decoder's levels, coarsest first.
    """

    def __init__(self, encoder: Encoder, dimensions: int, channels: int, classes: int, decoder: list[int]) -> None:
        nn.Module.__init__(self)
        self.skip_connect = len(decoder) - 1
        self.divisor = (2**_HALVINGS,) * dimensions
        self.encoder = encoder
        self.decoder = UNetDecoder(
            dimensions,
            encoder_channels=(channels, *encoder.widths),
            decoder_channels=decoder,
            act=("relu", {"inplace": True}),
            norm=("batch", {"eps": 1e-3, "momentum": 0.1}),
            dropout=0.0,
            bias=False,
            upsample="nontrainable",
            pre_conv="default",
            interp_mode="nearest",
            align_corners=None,
            is_pad=False,
        )
        self.segmentation_head = SegmentationHead(dimensions, decoder[-1], classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError unless the sides are multiples of `divisor`."""
        check_input(inputs.shape[2:], self.divisor, more_than_one=False)
        logits: torch.Tensor = super().forward(inputs)
        return logits


@described(
    NetCard(
        title="EfficientNet U-Net (MONAI FlexibleUNet)",
        source="Tan & Le 2019, ICML, arXiv 1905.11946",
        suited="Pictures in colour; a deep encoder with a small update.",
        federation="Batch normalisation with running statistics of momentum 0.01 in the encoder: rounds of few steps "
        "hardly move them, `norm: group` has none. 21 MB per update for `b0`, 75 MB for `b4`, in 2D.",
        receptive_field=None,
        small={"width": 0.25, "norm": "group"},
    )
)
def flexibleunet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    backbone: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = "b0",
    width: Annotated[float, Field(ge=0.25, le=1)] = 1.0,
    norm: Norm = "batch",
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.2,
) -> nn.Module:
    """Build the net.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        backbone: EfficientNet's sizes.
        width: Factor on all numbers of channels (1 as published; the encoder's are rounded to multiples of 8).
        norm: `batch` as published; others take its place in encoder and decoder.
        drop: How likely the encoder's last block is skipped in training, less for earlier ones (0.2 as published).
    """
    encoder = Encoder(dimensions, channels, backbone, width, drop)
    net = EfficientUNet(encoder, dimensions, channels, classes, [int(w * width) for w in _DECODER])
    if norm != "batch":
        _exchange(net, norm, dimensions)
    return net


def _exchange(module: nn.Module, norm: Norm, dimensions: int) -> None:
    """Put another normalisation wherever `module` has batch normalisation."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, make_norm(norm, dimensions, child.num_features))
        else:
            _exchange(child, norm, dimensions)
