"""The U-Net with dilated residuals: its links, its dilations, and the U-Net it is without them."""

import pytest
import torch
from torch import nn

from common.nets.dilated_unet import DilatedUNet, ResidualBlock
from common.nets.unet import UNet


def test_bottom_is_a_chain_of_dilations():
    net = DilatedUNet(3, 1, 2, width=2)
    layers = [m for m in net.bottom if isinstance(m, nn.Conv3d)]
    assert [m.dilation[0] for m in layers] == [1, 2, 4, 8]
    assert [(m.in_channels, m.out_channels) for m in layers] == [(8, 16), (16, 16), (16, 16), (16, 16)]


def test_block_adds_a_link_around_its_convolutions():
    torch.manual_seed(0)
    block = ResidualBlock(2, 3, 4, "none")
    x = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        whole, inner, link = block(x), block.convolutions(x), block.link(x)
    torch.testing.assert_close(whole, (inner + link).clamp(min=0))
    assert (block.link.kernel_size, block.link.in_channels) == ((1, 1), 3)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_parameters_are_a_unets_the_links_and_two_more_convolutions(norm):
    widths, classes = [32, 64, 128, 256], 2
    with torch.device("meta"):
        ours = sum(p.numel() for p in DilatedUNet(3, 1, classes, norm=norm).parameters())
        plain = sum(p.numel() for p in UNet(3, 1, classes, width=32, levels=4, norm=norm).parameters())
    links = sum((i + 1) * o for i, o in zip([1, *widths[:2]], widths[:3], strict=True))
    more = 2 * (27 * 256 * 256 + 256 + (512 if norm == "batch" else 0))
    assert ours == plain + links + more


def test_without_links_and_dilation_it_is_a_unet():
    """Weights copied into our U-Net, which has its own oracle; the two last dilations are made to pass on."""
    torch.manual_seed(0)
    ours = DilatedUNet(2, 1, 2, width=4, levels=3, norm="none").eval()
    plain = UNet(2, 1, 2, width=4, levels=3, norm="none").eval()
    with torch.no_grad():
        for block, target in zip([b.convolutions for b in ours.down], plain.down, strict=False):
            copy([m for m in block if isinstance(m, nn.Conv2d)], target)
        for block in ours.down:
            nn.init.zeros_(block.link.weight)
        layers = [m for m in ours.bottom if isinstance(m, nn.Conv2d)]
        copy(layers[:2], plain.down[-1])
        layers[1].dilation = layers[1].padding = (1, 1)
        for layer in layers[2:]:
            nn.init.dirac_(layer.weight)
        plain.up.load_state_dict(ours.up.state_dict())
        plain.head.load_state_dict(ours.head.state_dict())
        for size in ((32, 32), (37, 50)):
            x = torch.randn(1, 1, *size)
            torch.testing.assert_close(ours(x), plain(x))


def copy(layers: list[nn.Conv2d], target: nn.Module) -> None:
    into = [m for m in target.modules() if isinstance(m, nn.Conv2d)]
    for a, b in zip(layers, into, strict=True):
        b.load_state_dict(a.state_dict())
