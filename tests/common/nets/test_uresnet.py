"""uResNet by arithmetic on its figure, and its added skips."""

import torch
from torch import nn

from common.nets.uresnet import ResidualElement, uresnet


def element(i: int, o: int) -> int:
    return (9 * i * o + o) + (i * o + o) + 2 * o


def test_parameters_and_layers_of_the_figure():
    with torch.device("meta"):
        net = uresnet(2, 1, 3)
    kinds = [sum(isinstance(m, kind) for m in net.modules()) for kind in (ResidualElement, nn.ConvTranspose2d)]
    assert kinds == [8, 3]
    down = element(1, 32) + element(32, 64) + element(64, 128) + element(128, 256)
    up = 2 * element(128, 128) + element(64, 64) + element(32, 32)
    doubling = sum(9 * 2 * w * w + w for w in (128, 64, 32))
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == down + up + doubling + (32 * 3 + 3) == 1_200_003


def test_skips_are_added():
    """With the way up silenced, the last element sees the first one's features alone."""
    torch.manual_seed(0)
    net = uresnet(2, 1, 3, width=4).eval()
    last = net.grow[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(1, 1, 17, 24)
    torch.testing.assert_close(net(x), net.head(net.up[-1](net.down[0](x))))


def test_an_element_adds_before_it_normalises():
    torch.manual_seed(1)
    block = ResidualElement(3, 2, 4, norm="instance")
    nn.init.zeros_(block.wide.weight)
    x = torch.randn(1, 2, 4, 5, 6)
    y = torch.einsum("oi,bi...->bo...", block.branch.weight[:, :, 0, 0, 0], x)
    mean, variance = y.mean((2, 3, 4), keepdim=True), y.var((2, 3, 4), keepdim=True, correction=0)
    torch.testing.assert_close(block(x), ((y - mean) / (variance + 1e-5).sqrt()).relu())
