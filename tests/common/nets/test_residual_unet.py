"""Residual U-Net against the plain one and against MONAI's residual unit."""

import pytest
import torch
from monai.networks.blocks.convolutions import ResidualUnit
from torch import nn

from common.nets.residual_unet import ResidualBlock, residual_unet
from common.nets.unet import UNet


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_has_the_parameters_of_unet_and_of_the_branches(dimensions):
    widths = [64, 128, 256, 512, 1024]
    down = zip([1, *widths[:-1]], widths, strict=True)
    up = ((2 * w, w) for w in widths[:-1])
    branches = sum(i * o + o for i, o in (*down, *up))
    assert branches == 1_395_648
    with torch.device("meta"):
        plain, ours = UNet(dimensions, 1, 2, norm="none"), residual_unet(dimensions, 1, 2, norm="none")
    assert count(ours) == count(plain) + branches


@pytest.mark.parametrize("size", [(16, 24), (17, 15), (9, 8, 11)])
def test_without_its_branches_it_is_unet(size):
    torch.manual_seed(0)
    plain = UNet(len(size), 2, 3, width=4, levels=3).eval()
    ours = residual_unet(len(size), 2, 3, width=4, levels=3).eval()
    for block in (*ours.down, *ours.up):
        nn.init.zeros_(block.branch.weight)
        nn.init.zeros_(block.branch.bias)
    theirs = [
        *(p for block in plain.down for p in block.parameters()),
        *(p for up in plain.up for p in up.up.parameters()),
        *(p for up in plain.up for p in up.block.parameters()),
        *plain.head.parameters(),
    ]
    mine = [p for n, p in ours.named_parameters() if ".branch." not in n]
    with torch.no_grad():
        for a, b in zip(mine, theirs, strict=True):
            a.copy_(b)
    x = torch.randn(2, 2, *size)
    torch.testing.assert_close(ours(x), plain(x))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_block_is_monais_residual_unit_and_a_relu(dimensions):
    torch.manual_seed(1)
    theirs = ResidualUnit(dimensions, 3, 4, subunits=2, act="relu", norm=None, last_conv_only=True)
    ours = ResidualBlock(dimensions, 3, 4, norm="none")
    convolutions = (theirs.conv.unit0.conv, theirs.conv.unit1.conv, theirs.residual)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), (p for c in convolutions for p in c.parameters()), strict=True):
            a.copy_(b)
    x = torch.randn(2, 3, *(6, 7, 5)[:dimensions])
    torch.testing.assert_close(ours(x), theirs(x).relu())
