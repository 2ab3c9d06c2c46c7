"""NoPoolASPP against the count of its released network, and its order of operations."""

import pytest
import torch
from torch import nn

from common.nets.nopoolaspp import NoPoolASPP


def test_parameter_count_is_the_released_networks():
    """Convolutions 124,769, batch normalisation 1,408, as Keras printed them there (without running statistics)."""
    with torch.device("meta"):
        net = NoPoolASPP(2, 1, 1)
    convolutions = sum(p.numel() for m in net.modules() if isinstance(m, nn.Conv2d) for p in m.parameters())
    assert convolutions == 124_769
    assert sum(p.numel() for p in net.parameters()) == 126_177


def test_branches_have_the_papers_dilations():
    net = NoPoolASPP(2, 1, 2, width=2)
    found = [[(m.kernel_size[0], m.dilation[0]) for m in b.modules() if isinstance(m, nn.Conv2d)] for b in net.branches]
    assert found == [[(3, 1), (1, 1)], *([(3, rate)] * 2 for rate in (6, 12, 18, 24))]
    assert [m.dilation[0] for m in net.stem.modules() if isinstance(m, nn.Conv2d)] == [1, 1, 2, 2]


def test_order_is_convolution_relu_norm_dropout():
    net = NoPoolASPP(2, 1, 2, width=2)
    order = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Dropout]
    units = [m for m in net.modules() if isinstance(m, nn.Sequential) and isinstance(m[0], nn.Conv2d)]
    assert len(units) == 4 + 5 * 2 + 1
    assert all([type(layer) for layer in unit] == order for unit in units)


@pytest.mark.parametrize(("norm", "reaches"), [("batch", True), ("instance", False)])
def test_the_mean_branch_sees_the_whole_image_unless_each_image_is_normalised(norm, reaches):
    torch.manual_seed(0)
    net = NoPoolASPP(2, 1, 2, width=4, norm=norm).eval()
    whole = []
    net.join.register_forward_hook(lambda _, inputs, output: whole.append((inputs[0][:, -4:], output[:, -4:])))
    x = torch.randn(1, 1, 24, 24)
    with torch.inference_mode():
        net(x)
        net(x * torch.linspace(0.5, 1, 24))
    (before, after), (other_before, other_after) = whole
    assert (before == before[..., :1, :1]).all(), "one value per channel"
    assert not torch.allclose(before, other_before)
    assert (not torch.allclose(after, other_after)) == reaches
