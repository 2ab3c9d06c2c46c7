"""The receptive field on every card is the one that gradients measure."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from common.cards import NetCard, card_of
from common.names import NETS
from common.nets import divisor
from common.nets.r2unet import RepeatedBatchNorm

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
MEANS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
    nn.MaxPool3d: nn.AvgPool3d,
}
LONGEST = 4096


def receptive_field(net: nn.Module, dimensions: int, channels: int = 1) -> int | None:
    """Most voxels along the first axis on which one voxel of the logits depends through the convolutions.

    A copy of the net gets positive weights and a positive image, so that no activation can hide a path and no sum can
    cancel one; normalisation, which looks at everything, is left out, and a maximum becomes a mean. What the gradient
    of one output voxel reaches is then the receptive field. It is measured for one voxel of each place on the coarsest
    grid, away from the border, on an image long enough for it. None if even 4,096 voxels are not.
    """
    net = _all_paths_open(net)
    steps = divisor(net)
    length, beside = 64, 16 if dimensions == 2 else 8
    while length <= LONGEST:
        sides = [steps[0] * math.ceil(length / steps[0]), *(n * math.ceil(beside / n) for n in steps[1:])]
        widest = _widest_span(net, torch.ones(1, channels, *sides[:dimensions], dtype=torch.float64))
        if widest is not None:
            return widest
        length *= 2
    return None


def _all_paths_open(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net).eval().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(0.5, 1.5, generator=generator)
            if p.ndim == 1:
                p.mul_(0.1)
            else:
                p.div_(p[0].numel())
    for module in list(net.modules()):
        if hasattr(module, "inplace"):
            module.inplace = False
        for name, child in list(module.named_children()):
            if isinstance(child, (*NORMS, RepeatedBatchNorm)):
                setattr(module, name, nn.Identity())
            elif type(child) in MEANS:
                mean = MEANS[type(child)]
                setattr(module, name, mean(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    return net


def _widest_span(net: nn.Module, image: torch.Tensor) -> int | None:
    image.requires_grad_()
    logits = net(image)
    logits = logits[0, -1].reshape(logits.shape[2], -1)
    middle, beside = logits.shape[0] // 2, logits.shape[1] // 2
    period = max(32, divisor(net)[0])
    widest = 0
    for place in range(middle, middle + period):
        (gradient,) = torch.autograd.grad(logits[place, beside], image, retain_graph=True)
        reached = gradient.reshape(*gradient.shape[1:3], -1).abs().sum((0, 2)).nonzero().flatten()
        first, last = int(reached[0]), int(reached[-1])
        if first == 0 or last == image.shape[2] - 1:
            return None
        widest = max(widest, last - first + 1)
    return widest


def narrow(name: str) -> dict[str, Any]:
    """The options that make a net narrow and leave its depth alone."""
    if name == "planar":
        return {"net": {"name": "unet", "width": 2}, "planes": ("axial",)}
    if name in ("dynunet", "resenc"):
        # As many levels as the default has in 2D.
        return {"size": "small", "strides": ((2, 2),) * 5}
    width = NETS.options(name).model_json_schema()["properties"].get("width", {})
    least = [rules["minimum"] for rules in (width, *width.get("anyOf", [])) if "minimum" in rules]
    return {"width": least[0]} if least else {}


@pytest.mark.parametrize("size", [(3,), (5, 3), (3, 3, 7)])
def test_convolutions_in_a_row_by_hand(size):
    net = nn.Sequential(*(nn.Conv1d(1, 1, k, padding=k // 2) for k in size), nn.ReLU())
    net.divisor = (1,)
    assert receptive_field(net, 1) == 1 + sum(k - 1 for k in size)


def test_dilation_and_halving_by_hand():
    """3, dilated by 4: 8 more; a mean of 2: 1 more; 3 on the coarse grid: 2 · 2 more; up again: nothing more."""
    net = nn.Sequential(
        nn.Conv1d(1, 1, 3, padding=4, dilation=4), nn.MaxPool1d(2), nn.InstanceNorm1d(1),
        nn.Conv1d(1, 1, 3, padding=1), nn.PReLU(), nn.ConvTranspose1d(1, 1, 2, 2),
    )  # fmt: skip
    net.divisor = (2,)
    assert receptive_field(net, 1) == 1 + 8 + 1 + 4


def test_what_looks_at_everything_has_none():
    net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Upsample(LONGEST))
    net.divisor = (LONGEST,)
    assert receptive_field(net, 1) is None


@pytest.mark.full
@pytest.mark.parametrize("name", [n for n in NETS.names() if card_of(NETS.get(n)).receptive_field is not None])
def test_card_says_what_gradients_measure(name):
    card = card_of(NETS.get(name))
    assert isinstance(card, NetCard)
    dimensions = min(card.dimensions)
    net = NETS.get(name)(dimensions, card.channels, 2, **narrow(name))
    assert receptive_field(net, dimensions, card.channels) == card.receptive_field
