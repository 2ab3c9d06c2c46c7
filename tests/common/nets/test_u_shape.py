"""What the nets of the U-Net kin share: odd sides, each norm, and the receptive field of their cards, measured."""

import pytest
import torch
from torch import nn

from common.cards import NetCard, card_of
from common.names import NETS
from common.nets.u_shape import fit

# Name, and how long a line shows its receptive field.
LINES = {
    "residual_unet": 320,
    "uresnet": 160,
    "r2unet": 800,
    "multiscale_unet": 320,
    "inverted_net": 192,
    "inception_fcn": 192,
    "attention_unet": 256,
    "unetpp": 320,
}
KINDS = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "group": nn.GroupNorm}


def card(name: str) -> NetCard:
    found = card_of(NETS.get(name))
    assert isinstance(found, NetCard)
    return found


def every_path_counts(net: nn.Module) -> nn.Module:
    """Positive weights, and means in place of maxima, so that no part of a gradient is lost."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
    return net.double().eval()


@pytest.mark.parametrize("name", LINES)
def test_card_tells_the_widest_view_of_an_output_voxel(name):
    length = LINES[name]
    net = every_path_counts(NETS.get(name)(2, 1, 2, width=4, norm="none"))
    step, across = net.divisor[0], net.divisor[0]
    x = torch.ones(1, 1, length, across, dtype=torch.float64, requires_grad=True)
    line = net(x)[0, 0, :, across // 2]
    widest = 0
    for at in range(length // 2, length // 2 + step):
        (gradient,) = torch.autograd.grad(line[at], x, retain_graph=True)
        seen = gradient[0, 0].abs().sum(dim=1).nonzero()
        assert 0 < seen.min() <= seen.max() < length - 1, "the line is too short"
        widest = max(widest, int(seen.max() - seen.min()) + 1)
    assert widest == card(name).receptive_field


@pytest.mark.parametrize("norm", [*KINDS, "none"])
@pytest.mark.parametrize("name", [*LINES, "cru_net"])
def test_each_norm_trains_and_only_batch_has_buffers(name, norm):
    torch.manual_seed(0)
    net = NETS.get(name)(2, 1, 3, **{**card(name).small, "norm": norm})
    assert any(True for _ in net.buffers()) == (norm == "batch")
    assert {type(m) for m in net.modules()} & set(KINDS.values()) == ({KINDS[norm]} if norm in KINDS else set())
    outputs = net(torch.randn(2, 1, 32, 48))
    sum(o.square().mean() for o in (outputs if isinstance(outputs, list) else [outputs])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", [n for n in (*LINES, "cru_net") if n != "attention_unet"])
def test_odd_sides_keep_their_size_and_too_small_ones_are_refused(name):
    net = NETS.get(name)(2, 1, 3, **{**card(name).small, "norm": "instance"}).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 1, 37, 51)).shape == (1, 3, 37, 51)
        with pytest.raises(ValueError, match="the net needs sides of at least"):
            net(torch.randn(1, 1, 64, net.divisor[1] - 1))
        with pytest.raises(ValueError, match="single voxel"):
            net(torch.randn(1, 1, *net.divisor))


def test_fit_repeats_the_last_voxel_or_leaves_it_out():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert fit(x, (3, 2)).tolist() == [[[[0, 1], [3, 4], [3, 4]]]]
    assert fit(x, (2, 3)) is x
