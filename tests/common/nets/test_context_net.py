"""Yu and Koltun's context module and front end against their paper's and code's figures."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.errors import StudyError
from common.nets.context_net import ContextNet, context_module


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("classes", [2, 21])
def test_basic_module_has_64_c_squared_weights_as_the_paper_says(classes):
    module = context_module(classes, "basic")
    assert sum(c.weight.numel() for c in convolutions(module)) == 64 * classes**2
    assert sum(c.bias.numel() for c in convolutions(module)) == 8 * classes


def test_dilations_and_widths_are_the_papers():
    for size, widths in (("basic", [1] * 8), ("large", [2, 2, 4, 8, 16, 32, 32, 1])):
        layers = convolutions(context_module(3, size))
        assert [c.dilation[0] for c in layers[:-1]] == [1, 1, 2, 4, 8, 16, 1]
        assert [c.out_channels // 3 for c in layers] == widths
        assert [c.kernel_size[0] for c in layers] == [3] * 7 + [1]


def test_module_starts_as_the_identity():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 40, 40)
    torch.testing.assert_close(context_module(3, "basic")(x), x)
    # Its ReLU cuts off what is negative, as in the paper.
    torch.testing.assert_close(context_module(3, "basic")(-x), torch.zeros_like(x))
    large = context_module(3, "large")
    assert large(x).sub(x).abs().max() < 0.3
    for layer in convolutions(large)[:-1]:
        same = [torch.equal(layer.weight[i], layer.weight[j]) for i in range(2) for j in range(i)]
        assert not any(same), "channels that stand for the same class must differ"


def test_parameter_count_by_arithmetic():
    """VGG-16's convolutions, fc6, fc7 and the scores of 21 classes; then the module."""
    front = 14_714_688 + (512 * 49 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 21
    with torch.device("meta"):
        net = ContextNet(2, 3, 21)
    assert sum(p.numel() for p in net.parameters()) == front + 64 * 21**2 + 8 * 21


def test_valid_front_end_has_the_released_sizes():
    """The released code takes crops of 372 + 8 m voxels and labels of m."""
    with torch.device("meta"):
        net = ContextNet(2, 3, 21)
        assert net.front(torch.empty(1, 3, 500, 628)).shape == (1, 21, 16, 32)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(1, 9), (40, 35), (64, 72)])
def test_any_size_comes_back(padding, size):
    net = ContextNet(2, 1, 2, width=1, padding=padding).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_valid_front_end_sees_what_the_padded_one_sees_away_from_the_border():
    torch.manual_seed(0)
    valid = ContextNet(2, 1, 2, width=1).eval()
    same = ContextNet(2, 1, 2, width=1, padding="same").eval()
    same.load_state_dict(valid.state_dict())
    x = torch.randn(1, 1, 404, 404)
    with torch.inference_mode():
        # The valid one's grid begins 186 voxels further in, which is no multiple of 8: 6 in front bring them together.
        a, b = valid.front(x), same.front(F.pad(x, (6, 0, 6, 0)))
    assert (a.shape[2], b.shape[2]) == (4, 52)
    assert a.std() > 0
    torch.testing.assert_close(a, b[..., 24:28, 24:28])


def test_other_dimensions_are_refused():
    with pytest.raises(StudyError, match=r"takes data\.dimensions: 2, not 3"):
        ContextNet(3, 1, 2)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_single_voxel_to_normalise_is_refused(padding):
    net = ContextNet(2, 1, 2, width=1, norm="instance", padding=padding)
    assert net(torch.randn(1, 1, 16, 8)).shape == (1, 2, 16, 8)
    with pytest.raises(ValueError, match="single voxel"):
        net(torch.randn(1, 1, 8, 8))
