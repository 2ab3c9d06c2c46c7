"""Our nets beside the same net elsewhere: MONAI's, or nnU-Net's own; what `simulations.benchmarks.nets` compares.

All have one image channel and three classes. Where the other net is not the same one, the pair says so, and its ratio
is information only.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from monai.networks import nets as _monai
from torch import nn

from common.names import NETS

CHANNELS, CLASSES = 1, 3
# MONAI names its nets in a way that a type checker cannot follow.
monai: Any = _monai
Make = Callable[[int, int], tuple[nn.Module, nn.Module]]


class Setting(NamedTuple):
    """How large a pair is on one kind of device.

    Attributes:
        dimensions: 2 or 3.
        width: Channels of the first level.
        side: Of the input, in voxels.
    """

    dimensions: int
    width: int
    side: int


class Pair(NamedTuple):
    """A net and its counterpart.

    Attributes:
        make: From dimensions and width to both nets, ours first.
        other: Name of the counterpart, and how it differs.
        same: Whether it is the same net, so that ours may not be slower.
        cpu: Small.
        cuda: As in use.
    """

    make: Make
    other: str
    same: bool
    cpu: Setting
    cuda: Setting


def _ours(name: str, dimensions: int, **options: Any) -> nn.Module:
    net: nn.Module = NETS.get(name)(dimensions, CHANNELS, CLASSES, **options)
    return net


def _levels(width: int, levels: int) -> list[int]:
    return [width * 2**level for level in range(levels)]


def _unet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    features = (*_levels(width, 5), width)
    norm = ("instance", {"affine": True})
    return _ours("unet", dimensions, width=width), monai.BasicUNet(
        dimensions, CHANNELS, CLASSES, features=features, act=("relu", {"inplace": True}), norm=norm
    )


def _dynunet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    size, levels = {8: ("small", 4), 32: ("medium", 4)}[width]
    return _ours("dynunet", dimensions, size=size), monai.DynUNet(
        dimensions,
        CHANNELS,
        CLASSES,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=_levels(width, levels),
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=levels - 2,
    )


def _segresnet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("segresnet", dimensions, width=width), monai.SegResNet(dimensions, width, CHANNELS, CLASSES)


def _residual_unet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    # The fifth block of MONAI's, at the bottom, does not halve; its first one would, if it were not told.
    widths = _levels(width, 4)
    return _ours("residual_unet", dimensions, width=width, levels=4), monai.UNet(
        dimensions,
        CHANNELS,
        CLASSES,
        channels=[*widths, widths[-1]],
        strides=[1, 2, 2, 2],
        num_res_units=2,
        act="relu",
        norm=("instance", {"affine": True}),
    )


def _vnet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("vnet", dimensions, width=width), monai.VNet(dimensions, CHANNELS, CLASSES)


def _vnet_monai(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("vnet_monai", dimensions, width=width), monai.VNet(
        dimensions, CHANNELS, CLASSES, dropout_dim=dimensions
    )


def _attention_unet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("attention_unet", dimensions, width=width), monai.AttentionUnet(
        dimensions, CHANNELS, CLASSES, channels=_levels(width, 5), strides=[2] * 4
    )


def _unetpp(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    features = (*_levels(width, 5), width)
    return _ours("unetpp", dimensions, width=width), monai.BasicUNetPlusPlus(
        dimensions, CHANNELS, CLASSES, features=features, deep_supervision=True
    )


def _resenc(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    size, levels = {8: ("small", 3), 32: ("medium", 4)}[width]
    # An oracle of the tests, by its authors; not among our own dependencies.
    other = importlib.import_module("dynamic_network_architectures.architectures.unet")
    conv, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[dimensions - 2]
    net: nn.Module = other.ResidualEncoderUNet(
        input_channels=CHANNELS,
        n_stages=levels,
        features_per_stage=_levels(width, levels),
        conv_op=conv,
        kernel_sizes=3,
        strides=[1] + [2] * (levels - 1),
        n_blocks_per_stage=[1, 3, 4, 6][:levels],
        num_classes=CLASSES,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    return _ours("resenc", dimensions, size=size), net


def _swinunetr(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("swinunetr", dimensions, width=width), monai.SwinUNETR(
        CHANNELS, CLASSES, feature_size=width, spatial_dims=dimensions
    )


def _mednext(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("mednext", dimensions, width=width), monai.MedNeXt(
        dimensions, width, CHANNELS, CLASSES, kernel_size=3, deep_supervision=True, use_residual_connection=True
    )


def _highresnet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("highresnet", dimensions, width=width), monai.HighResNet(dimensions, CHANNELS, CLASSES)


def _flexibleunet(dimensions: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _ours("flexibleunet", dimensions, backbone="b0", width=float(width)), monai.FlexibleUNet(
        CHANNELS, CLASSES, "efficientnet-b0", spatial_dims=dimensions
    )


# MONAI's VNet, HighResNet and EfficientNet have one width each.
PAIRS: dict[str, Pair] = {
    "unet": Pair(_unet, "MONAI BasicUNet, last up-convolution wider", False, Setting(3, 8, 32), Setting(3, 32, 96)),
    "dynunet": Pair(_dynunet, "MONAI DynUNet, supervised", True, Setting(3, 8, 32), Setting(3, 32, 96)),
    "segresnet": Pair(_segresnet, "MONAI SegResNet", True, Setting(3, 8, 32), Setting(3, 16, 96)),
    "residual_unet": Pair(
        _residual_unet, "MONAI UNet with two residual units, other paths", False, Setting(3, 8, 32), Setting(3, 32, 96)
    ),
    "vnet": Pair(_vnet, "MONAI VNet, another net", False, Setting(2, 16, 64), Setting(3, 16, 64)),
    "vnet_monai": Pair(_vnet_monai, "MONAI VNet", True, Setting(2, 16, 64), Setting(3, 16, 64)),
    "attention_unet": Pair(_attention_unet, "MONAI AttentionUnet", True, Setting(3, 8, 32), Setting(3, 32, 96)),
    "unetpp": Pair(_unetpp, "MONAI BasicUNetPlusPlus", True, Setting(3, 4, 32), Setting(3, 16, 96)),
    "resenc": Pair(_resenc, "nnU-Net's ResidualEncoderUNet", True, Setting(3, 8, 32), Setting(3, 32, 96)),
    "swinunetr": Pair(_swinunetr, "MONAI SwinUNETR", True, Setting(2, 12, 64), Setting(3, 24, 96)),
    "mednext": Pair(_mednext, "MONAI MedNeXt", True, Setting(3, 8, 32), Setting(3, 32, 96)),
    "highresnet": Pair(_highresnet, "MONAI HighResNet", True, Setting(2, 16, 48), Setting(3, 16, 64)),
    "flexibleunet": Pair(_flexibleunet, "MONAI FlexibleUNet", True, Setting(2, 1, 64), Setting(2, 1, 256)),
}
