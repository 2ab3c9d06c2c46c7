"""R2U-Net: the released code's parameters, and weights shared over the repetitions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.nets.r2unet import RecurrentLayer, r2unet


@pytest.mark.parametrize("recurrences", [0, 2, 5])
def test_parameters_of_the_release_whatever_the_recurrences(recurrences):
    with torch.device("meta"):
        net = r2unet(2, 3, 1, recurrences=recurrences)
    assert sum(p.numel() for p in net.parameters()) == 39_091_393


def test_a_layer_is_its_own_convolution_unrolled():
    torch.manual_seed(0)
    layer = RecurrentLayer(2, 3, norm="none", recurrences=2)
    weight, bias = layer.unit[0].weight, layer.unit[0].bias
    x = torch.randn(2, 3, 6, 5)
    first = F.conv2d(x, weight, bias, padding=1).relu()
    second = F.conv2d(x + first, weight, bias, padding=1).relu()
    third = F.conv2d(x + second, weight, bias, padding=1).relu()
    torch.testing.assert_close(layer(x), third)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_repetition_has_statistics_of_its_own(dimensions):
    """With the statistics of one batch alone (momentum 1) evaluation gives for this batch what training gave."""
    torch.manual_seed(2)
    layer = RecurrentLayer(dimensions, 3, norm="batch", recurrences=2)
    kind = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
    norms = [m for m in layer.modules() if isinstance(m, kind)]
    assert len(norms) == 3
    for norm in norms:
        norm.momentum = 1.0
    x = 1 + torch.randn(2, 3, *(96, 96, 12)[:dimensions])
    training = layer(x)
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1, 1]
    # Running variances are without bias, those of a batch are not: one part in 10,000 here.
    torch.testing.assert_close(layer.eval()(x), training, rtol=1e-3, atol=1e-3)
    norms[2].load_state_dict(norms[0].state_dict())
    assert (layer(x) - training).abs().max() > 0.1


@pytest.mark.parametrize("recurrences", [0, 1, 3])
def test_each_convolution_of_a_block_runs_once_more_than_it_recurs(recurrences):
    net = r2unet(2, 1, 2, width=2, levels=3, recurrences=recurrences).eval()
    calls: dict[nn.Module, int] = {}
    for layer in (m for m in net.modules() if isinstance(m, RecurrentLayer)):
        layer.unit[0].register_forward_hook(lambda m, *_: calls.update({m: calls.get(m, 0) + 1}))
    net(torch.randn(1, 1, 8, 8))
    assert list(calls.values()) == [1 + recurrences] * 2 * 5


def test_a_block_adds_its_widened_input():
    torch.manual_seed(1)
    block = r2unet(2, 2, 3, width=4, levels=3).eval().down[0]
    x = torch.randn(1, 2, 8, 8)
    widened = F.conv2d(x, block.widen.weight, block.widen.bias)
    torch.testing.assert_close(block(x), widened + block.layers(widened))
