"""Multi-scale U-Net: one magnification is U-Net; further ones see the averaged image."""

import pytest
import torch
from torch.nn import functional as F

from common.errors import StudyError
from common.nets.multiscale_unet import MultiScaleUNet
from common.nets.unet import UNet


@pytest.mark.parametrize("size", [(16, 24), (13, 17), (8, 9, 11)])
def test_with_one_magnification_it_is_unet(size):
    torch.manual_seed(0)
    plain = UNet(len(size), 2, 3, width=4, levels=3).eval()
    ours = MultiScaleUNet(len(size), 2, 3, width=4, levels=3, magnifications=1).eval()
    theirs = [
        *(p for block in plain.down for p in block.parameters()),
        *(p for up in plain.up for p in up.up.parameters()),
        *(p for up in plain.up for p in up.block.parameters()),
        *plain.head.parameters(),
    ]
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs, strict=True):
            a.copy_(b)
    x = torch.randn(2, 2, *size)
    torch.testing.assert_close(ours(x), plain(x))


def test_parameters_of_three_encoders_and_wider_skips():
    def double(i: int, o: int) -> int:
        return (9 * i * o + o) + (9 * o * o + o)

    encoders = double(3, 32) + double(32, 64) + double(64, 128) + double(128, 256)
    encoders += double(3, 64) + double(64, 128) + double(128, 256)
    encoders += double(3, 128) + double(128, 256)
    bottom = double(3 * 256, 512)
    up = sum(double(n * w + w, w) + (4 * 2 * w * w + w) for n, w in ((3, 256), (3, 128), (2, 64), (1, 32)))
    with torch.device("meta"):
        net = MultiScaleUNet(2, 3, 4, norm="none")
    assert sum(p.numel() for p in net.parameters()) == encoders + bottom + up + (32 * 4 + 4)


@pytest.mark.parametrize("size", [(32, 40), (16, 20, 18)])
def test_each_encoder_sees_its_magnification(size):
    net = MultiScaleUNet(len(size), 2, 3, width=2, levels=4).eval()
    seen = []
    for encoder in net.encoders:
        encoder[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(1, 2, *size)
    net(x)
    mean = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    for found, factor in zip(seen, (1, 2, 4), strict=True):
        torch.testing.assert_close(found, mean(x, factor))


def test_more_magnifications_than_levels_are_refused():
    with pytest.raises(StudyError, match="3 need at least 4 levels"):
        MultiScaleUNet(2, 1, 2, levels=3)
