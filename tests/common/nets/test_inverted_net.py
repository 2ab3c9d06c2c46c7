"""InvertedNet and its siblings by arithmetic, and what tells them apart."""

import itertools

import pytest
import torch
from torch import nn

from common.nets.inverted_net import inverted_net

INVERTED, DOUBLING = [256, 128, 64, 32, 16], [64, 128, 256, 512, 1024]


def by_hand(widths: list[int], classes: int) -> int:
    def conv(i: int, o: int) -> int:
        return 9 * i * o + o

    down = sum(conv(i, o) + conv(o, o) for i, o in zip([1, *widths[:-1]], widths, strict=True))
    up = sum(conv(w + below, w) + conv(w, w) for w, below in itertools.pairwise(widths))
    return down + up + widths[0] * classes + classes


@pytest.mark.parametrize(
    ("variant", "classes", "parameters"),
    [
        ("inverted", 3, by_hand(INVERTED, 3)),
        ("all_dropout", 4, by_hand(DOUBLING, 4)),
        ("all_conv", 4, by_hand(DOUBLING, 4) + sum(9 * w * w + w for w in DOUBLING[:-1])),
    ],
)
def test_parameters(variant, classes, parameters):
    with torch.device("meta"):
        net = inverted_net(2, 1, classes, variant=variant)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert variant != "inverted" or parameters == 3_140_771


@pytest.mark.parametrize(
    ("variant", "shapes"),
    [
        ("inverted", [(32, 64), (16, 64), (8, 32), (4, 16), (2, 8)]),
        ("all_dropout", [(2, 64), (4, 32), (8, 16), (16, 8), (32, 4)]),
        ("all_conv", [(2, 64), (4, 32), (8, 16), (16, 8), (32, 4)]),
    ],
)
def test_channels_and_sides_of_the_levels(variant, shapes):
    net = inverted_net(2, 1, 2, variant=variant, width=2).eval()
    seen = []
    for block in net.down:
        block.register_forward_hook(lambda _, __, y: seen.append((y.shape[1], y.shape[2])))
    net(torch.randn(1, 1, 64, 64))
    assert seen == shapes
    assert net.divisor == (64 // shapes[-1][1],) * 2


@pytest.mark.parametrize("variant", ["inverted", "all_dropout", "all_conv"])
def test_every_convolution_has_its_elu_and_dropout(variant):
    net = inverted_net(2, 1, 2, variant=variant, width=2)
    units = [[type(m) for m in s] for s in net.modules() if isinstance(s, nn.Sequential)]
    unit = [nn.Conv2d, nn.Identity, nn.ELU, nn.Dropout]
    assert all(u in (unit, unit * 2) for u in units)
    assert sum(len(u) for u in units) // 4 == sum(isinstance(m, nn.Conv2d) for m in net.modules()) - 1
    assert any(isinstance(m, nn.MaxPool2d) for m in net.modules()) == (variant != "all_conv")


@pytest.mark.parametrize("variant", ["inverted", "all_dropout", "all_conv"])
@pytest.mark.parametrize("size", [(33, 47), (18, 17, 19)])
def test_odd_sizes(variant, size):
    net = inverted_net(len(size), 1, 2, variant=variant, width=2, dropout=0.0)
    assert net(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    net = inverted_net(2, 1, 2, width=2)
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
