"""HighResNet (HighRes3DNet): residual blocks of growing dilation at full resolution.

Source: Li et al. 2017; MONAI 1.6 holds the blocks. A 3-wide convolution, three groups of three residual blocks with
dilations 1, 2, 4 and 16, 32, 64 channels (two convolutions each, normalised and activated before), then 1-wide
convolutions of 80 and of K channels. No biases; batch normalisation after the last convolution, too. With 1 channel
and 160 classes 821,904 parameters.

MONAI also applies ReLU to the last layer, so that no class can have a negative logit; the net of the paper does not,
and neither does this one.
"""

import math
from typing import Annotated, Any

from monai.networks.nets.highresnet import HighResNet
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, Norm


class AnySizeHighResNet(HighResNet):
    """MONAI's HighResNet, which keeps its resolution throughout."""

    divisor: tuple[int, ...]


@described(
    NetCard(
        title="HighResNet",
        source="Li et al. 2017, IPMI, doi:10.1007/978-3-319-59050-9_28, arXiv 1707.01992",
        suited="Many small structures in 3D, e.g. a brain's parcellation; a small update, much memory.",
        federation="Batch normalisation's running statistics cross as rounds.buffers says (none with another `norm`); "
        "an update of 3.2 MB at the default width.",
        receptive_field=87,
        small={"width": 4},
    )
)
def highresnet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=1, le=128)] = 16,
    norm: Norm = "batch",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Build the net.

    Args:
        dimensions: 3 as published, or 2.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first group, 2 and 4 times as many in the next ones, 5 times in the last layer but one.
        norm: Normalisation before each activation. The logits themselves are normalised by `batch` only: by the others
            an image without a label would get as much of it as one with it.
        dropout: Share of the last layer's features that are set to 0 in training (the paper tries 0 and 0.5).
    """
    norms: dict[Norm, Any] = {
        "batch": ("BATCH", {"affine": True}),
        "instance": ("INSTANCE", {"affine": True}),
        "group": ("GROUP", {"num_groups": math.gcd(8, width)}),
        "none": None,
    }
    layers: list[dict[str, Any]] = [{"name": "conv_0", "n_features": width, "kernel_size": 3}]
    for group, factor in enumerate((1, 2, 4), start=1):
        layers.append({"name": f"res_{group}", "n_features": factor * width, "kernels": (3, 3), "repeat": 3})
    layers.append({"name": "conv_1", "n_features": 5 * width, "kernel_size": 1})
    layers.append({"name": "conv_2", "kernel_size": 1})
    net = AnySizeHighResNet(
        spatial_dims=dimensions,
        in_channels=channels,
        # The last layer of the others is replaced below; groups could not be made of any number of classes.
        out_channels=classes if norm == "batch" else width,
        norm_type=norms[norm],
        # Without a norm before it, an activation in place would overwrite what the block adds to its output.
        acti_type=("relu", {"inplace": norm != "none"}),
        dropout_prob=dropout,
        bias=norm == "none",
        layer_params=layers,
    )
    if norm == "batch":
        # MONAI would drop out and cut off the logits as it does features.
        last: Any = net.blocks[-1]
        del last.adn.A
        del last.adn.D
    else:
        net.blocks[-1] = CONV[dimensions](5 * width, classes, 1)
    net.divisor = (1,) * dimensions
    return net
