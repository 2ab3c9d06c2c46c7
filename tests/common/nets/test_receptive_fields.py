"""The receptive field that a net's card tells, measured: which input voxels have a gradient at an output voxel."""

import numpy as np
import pytest
import torch
from torch import nn

from common.cards import NetCard, card_of
from common.names import NETS
from common.nets.context_net import context_module
from common.nets.vnet import VNet

# Name, options that are as deep as the default net, length of the image, and after how many voxels the net repeats.
CASES = [
    ("vnet", {"width": 1}, 640, 16),
    ("vnet_monai", {"width": 1}, 560, 16),
    ("fcn", {"width": 1}, 560, 32),
    ("cmr_fcn", {"width": 1, "norm": "none"}, 400, 16),
    ("hed_fcn", {"width": 1}, 320, 16),
    ("context_net", {"width": 1}, 1200, 8),
    ("lungnet", {"width": 1, "norm": "none"}, 320, 1),
    ("highresnet", {"width": 1, "norm": "none"}, 120, 1),
    ("dilated_unet", {"width": 1, "norm": "none"}, 400, 8),
]


def without_chance(net: nn.Module) -> nn.Module:
    """All weights positive and nothing that looks at the whole image, so that every path of a gradient counts."""
    for name, module in list(net.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, child_name, nn.AvgPool2d(child.kernel_size, child.stride, 0, child.ceil_mode))
            if isinstance(child, (nn.BatchNorm2d, nn.Dropout, nn.Dropout2d)):
                setattr(module, child_name, nn.Identity())
        assert not isinstance(module, nn.InstanceNorm2d), name
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
    return net.double().eval()


def spans(net: nn.Module, length: int, period: int, across: int) -> np.ndarray:
    """First and last input voxel, relative to the output voxel, for output voxels around the middle of a line."""
    x = torch.ones(1, 1, length, across, dtype=torch.float64, requires_grad=True)
    line = net(x)[0, 0, :, across // 2]
    found = []
    middle = length // 2
    for at in range(middle, middle + period):
        (gradient,) = torch.autograd.grad(line[at], x, retain_graph=True)
        seen = gradient[0, 0].abs().sum(dim=1).nonzero()
        assert seen.min() > 0, "the image is too short"
        assert seen.max() < length - 1, "the image is too short"
        found.append((seen.min() - at, seen.max() - at))
    return np.array(found)


@pytest.mark.parametrize(("name", "options", "length", "period"), CASES, ids=[case[0] for case in CASES])
def test_card_tells_the_widest_view_of_a_voxel_and_it_looks_both_ways(name, options, length, period):
    make = NETS.get(name)
    told = card_of(make)
    assert isinstance(told, NetCard)
    torch.manual_seed(0)
    net = without_chance(make(2, 1, 2, **options))
    found = spans(net, length, period, across=16)
    assert (found[:, 1] - found[:, 0] + 1).max() == told.receptive_field
    # Over a period the view is as wide to one side as to the other, or the output would lie beside the image.
    assert abs(found.sum(axis=1).mean()) <= 1


def test_vnet_sees_as_far_as_its_paper_says():
    """Milletari et al. 2016, table 1, the five stages of the left side: 5, 22, 72, 172, 372 voxels."""
    net = without_chance(VNet(2, 1, 2, width=1))
    x = torch.ones(1, 1, 800, 16, dtype=torch.float64, requires_grad=True)
    seen = []
    for features in net.encode(x):
        (gradient,) = torch.autograd.grad(features[0, 0, features.shape[2] // 2, 0], x, retain_graph=True)
        rows = gradient[0, 0].sum(dim=1).nonzero()
        seen.append(int(rows.max() - rows.min()) + 1)
    assert seen == [5, 22, 72, 172, 372]


def test_context_module_sees_67_voxels_as_its_paper_says():
    module = without_chance(context_module(2, "basic"))
    x = torch.ones(1, 2, 101, 101, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0, 0, 50, 50], x)
    seen = gradient[0].sum(dim=0).nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [67, 67]
