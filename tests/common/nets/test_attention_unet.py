"""Attention U-Net is MONAI's, with a choice of normalisation and clear refusals."""

import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock, AttentionUnet
from torch import nn

from common.nets.attention_unet import attention_unet


@pytest.mark.parametrize("dimensions", [2, 3])
def test_parameters_are_monais(dimensions):
    channels = [64, 128, 256, 512, 1024]
    with torch.device("meta"):
        ours = attention_unet(dimensions, 3, 1)
        theirs = AttentionUnet(dimensions, 3, 1, channels=channels, strides=[2] * 4)
    found, expected = (sum(p.numel() for p in net.parameters()) for net in (ours, theirs))
    assert found == expected
    assert dimensions == 3 or found == 31_740_337


@pytest.mark.parametrize("size", [(16, 24), (8, 12, 16)])
def test_output_is_monais(size):
    torch.manual_seed(1)
    theirs = AttentionUnet(len(size), 2, 3, channels=[4, 8, 16], strides=[2, 2]).eval()
    torch.manual_seed(1)
    ours = attention_unet(len(size), 2, 3, width=4, levels=3).eval()
    x = torch.randn(1, 2, *size)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)],
)
def test_the_norm_stands_wherever_monai_normalises(norm, kind):
    monai, ours = attention_unet(2, 1, 2, width=4, levels=3), attention_unet(2, 1, 2, width=4, levels=3, norm=norm)
    places = [n for n, m in monai.named_modules() if isinstance(m, (nn.BatchNorm2d, nn.InstanceNorm2d))]
    # Two convolutions on each of three levels; per gate and step up: the up-convolution, the gate's three, the merging.
    assert len(places) == 2 * 3 + 5 * 2
    assert [type(ours.get_submodule(n)) for n in places] == [kind] * len(places)
    assert any(True for _ in ours.buffers()) == (norm == "batch")
    assert ours(torch.randn(2, 1, 16, 16)).shape == (2, 2, 16, 16)


def test_gates_scale_each_voxel_of_the_skip_by_one_number_below_1():
    torch.manual_seed(2)
    net = attention_unet(2, 1, 2, width=4, levels=3).eval()
    scales = []

    def note(_, given, skip_passed):
        scales.append(skip_passed / given["x"])

    gates = [m for m in net.modules() if isinstance(m, AttentionBlock)]
    for gate in gates:
        gate.register_forward_hook(lambda m, args, kwargs, y: note(m, kwargs, y), with_kwargs=True)
    net(torch.randn(1, 1, 16, 16))
    assert len(scales) == 2
    for scale in scales:
        one = scale.nanmean(1, keepdim=True).expand_as(scale)
        known = ~scale.isnan()
        torch.testing.assert_close(scale[known], one[known])
        assert 0 < scale[known].min() <= scale[known].max() < 1


def test_sides_that_monai_would_fail_on_are_refused():
    net = attention_unet(2, 1, 2, width=4, levels=3)
    with pytest.raises(ValueError, match=r"needs sides of multiples of \[4, 4\]"):
        net(torch.zeros(1, 1, 16, 18))
