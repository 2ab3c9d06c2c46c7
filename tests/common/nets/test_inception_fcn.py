"""Inception FCN: its block against plain convolutions, its parameters by arithmetic."""

import torch
from torch.nn import functional as F

from common.nets.inception_fcn import InceptionBlock, inception_fcn


def block(i: int, o: int) -> int:
    w = o // 4
    return 4 * (i * w + w) + (9 * w * w + w) + (25 * w * w + w)


def test_parameters_without_normalisation():
    widths = [64, 128, 256, 512]
    down = sum(block(i, o) for i, o in zip([3, *widths[:-1]], widths, strict=True))
    up = sum(block(2 * w, w) + (4 * 2 * w * w + w) for w in widths[:-1])
    with torch.device("meta"):
        net = inception_fcn(2, 3, 2, norm="none")
    assert sum(p.numel() for p in net.parameters()) == down + up + (64 * 2 + 2)


def test_a_block_is_its_four_branches():
    torch.manual_seed(0)
    ours = InceptionBlock(2, 3, 8, norm="none")
    x = torch.randn(2, 3, 9, 7)
    one, three, five, most = ours.branches

    def conv(x: torch.Tensor, unit: torch.nn.Module) -> torch.Tensor:
        return F.conv2d(x, unit[0].weight, unit[0].bias, padding=unit[0].weight.shape[-1] // 2).relu()

    expected = [
        conv(x, one),
        conv(conv(x, three[0]), three[1]),
        conv(conv(x, five[0]), five[1]),
        conv(F.max_pool2d(x, 3, stride=1, padding=1), most[1]),
    ]
    assert [unit.weight.shape[-1] for unit in (one[0], three[1][0], five[1][0], most[1][0])] == [1, 3, 5, 1]
    torch.testing.assert_close(ours(x), torch.cat(expected, dim=1))
