"""Context module on a VGG front end: dilated convolutions that widen the view without losing resolution.

Source: Yu & Koltun 2016 and its released networks. Front end: VGG-16 without its last two poolings, which the
convolutions after them make up for by dilation 2 and 4, then the classifier's 7-wide and 1-wide convolutions of 4,096
channels; it gives one map per class at an eighth of the resolution. Context module: 3-wide convolutions with dilations
1, 1, 2, 4, 8, 16, 1, each with bias and ReLU, and a 1-wide one; it begins as the identity. Its output is interpolated
linearly. The basic module keeps the number of classes C in all layers and has 64 C² weights (and 8 C biases); the large
one has 2, 2, 4, 8, 16, 32, 32 times C channels.

The front end's convolutions are not padded: the image is mirrored by 186 voxels on each side, as released.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.layers import Norm, conv_unit, he_normal, mirror
from common.nets.shapes import check_input
from common.nets.vgg import enlarge, vgg_stages, vgg_widths

_MARGIN = 186
_STEP = 8
_POOLED = 3
_DILATIONS = (1, 1, 2, 4, 8, 16, 1)
_WIDTHS = {"basic": (1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32)}


@described(
    NetCard(
        title="Dilated context module",
        source="Yu & Koltun 2016, ICLR, arXiv 1511.07122",
        suited="2D structures that are told apart by what lies far around them.",
        federation="No buffers unless `norm: batch`; an update of 537 MB at the default width, most of it one layer of "
        "the front end.",
        receptive_field=916,
        dimensions=(2,),
        small={"width": 4, "padding": "same", "norm": "instance", "dropout": 0.0},
    )
)
class ContextNet(nn.Module):
    """Front end and context module, trained as one from scratch.

    Args:
        dimensions: 2.
        channels: Image channels.
        classes: Labels and background.
        context: `basic`, or `large` with up to 32 times as many channels.
        width: Channels of the front end's first stage; the further ones and the classifier's layers scale with it (64
            in the paper, giving up to 512 and 4,096).
        padding: Of the front end: `valid` mirrors the image by 186 voxels as released, which on a patch of 128
            costs 15 times the work; `same` pads each convolution with zeros.
        norm: Normalisation between convolution and ReLU in the front end (the paper has none); the context module
            has none, as it begins as the identity.
        dropout: Share of the classifier's features that are set to 0 in training.

    Raises:
        StudyError: `dimensions` is not 2.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        context: Literal["basic", "large"] = "basic",
        width: Annotated[int, Field(ge=1, le=64)] = 64,
        padding: Literal["valid", "same"] = "valid",
        norm: Norm = "none",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()
        if dimensions != 2:
            raise StudyError(f"net context_net takes data.dimensions: 2, not {dimensions}; dilated_unet takes 3")
        pad = padding == "same"
        self.stages = vgg_stages(2, channels, width=width, norm=norm, dilations=(1, 1, 1, 1, 2), pad=pad)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        features = 64 * width
        self.classifier = nn.Sequential(
            *conv_unit(2, vgg_widths(width)[-1], features, kernel=7, norm=norm, dilation=4, pad=pad),
            nn.Dropout(dropout),
            *conv_unit(2, features, features, kernel=1, norm=norm),
            nn.Dropout(dropout),
            nn.Conv2d(features, classes, 1),
        )
        self.apply(he_normal)
        self.context = context_module(classes, context)
        self.padding, self.norm = padding, norm
        self.divisor = (1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, H, W)`; ValueError if the front end's output would be a single voxel to normalise."""
        size = x.shape[2:]
        if self.norm != "none":
            check_input(size, (_STEP, _STEP), multiple=False)
        if self.padding == "valid":
            for axis, n in enumerate(size, start=2):
                x = mirror(x, axis, _MARGIN, _MARGIN + (-n) % _STEP)
        return enlarge(self.context(self.front(x)), _STEP, size)

    def front(self, x: torch.Tensor) -> torch.Tensor:
        """The front end's scores, at an eighth of the resolution; with `valid` 372 voxels of each side are used up."""
        for level, stage in enumerate(self.stages):
            x = stage(x)
            if level < _POOLED:
                x = self.pool(x)
        scores: torch.Tensor = self.classifier(x)
        return scores


def context_module(classes: int, size: Literal["basic", "large"]) -> nn.Sequential:
    """The context module on its own: maps `(B, classes, H, W)` to the same shape."""
    layers: list[nn.Module] = []
    before = classes
    for factor, dilation in zip(_WIDTHS[size], _DILATIONS, strict=True):
        after = factor * classes
        layers += conv_unit(2, before, after, norm="none", dilation=dilation)
        before = after
    module = nn.Sequential(*layers, nn.Conv2d(before, classes, 1))
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            _start_as_identity(layer, classes)
    return module


def _start_as_identity(layer: nn.Conv2d, classes: int) -> None:
    """Each output takes the mean of the inputs that stand for the same class, as the paper's equations 4 and 5.

    Between layers of more than one channel per class the paper adds noise to tell them apart, much smaller than the
    weight; here its standard deviation is a hundredth of that.
    """
    before, after, middle = layer.in_channels, layer.out_channels, layer.kernel_size[0] // 2
    weight = classes / after
    with torch.no_grad():
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if before == after == classes:
            layer.weight.zero_()
        else:
            layer.weight.normal_(0, weight / 100)
        for o in range(after):
            own = o * classes // after
            step = before // classes
            layer.weight[o, own * step : (own + 1) * step, middle, middle] = weight
