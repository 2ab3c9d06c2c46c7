"""DenseVNet against NiftyNet's layer table, and its batch-wise dropout, padding and prior against closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.errors import StudyError
from common.nets.densevnet import BatchwiseDropout, DenseVNet


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# By arithmetic on NiftyNet's dense_vnet defaults (its TensorFlow 1 code was not run): convolutions and the head's bias,
# then scale and shift of all norms.
@pytest.mark.parametrize(("classes", "convolutions"), [(2, 866_192), (9, 877_728)])
def test_parameters_with_niftynets_defaults(classes, convolutions):
    with torch.device("meta"):
        net = DenseVNet(3, 1, classes)
    norms = sum(count(m) for m in net.modules() if isinstance(m, nn.BatchNorm3d))
    assert (count(net) - norms, norms) == (convolutions, 786)


def test_stacks_are_dense_and_joined_at_half_resolution():
    with torch.device("meta"):
        net = DenseVNet(3, 1, 2)
        seen = [[unit[0].in_channels for unit in stack.units] for stack in net.stacks]
        assert seen == [
            list(range(25, 45, 4)), list(range(24, 104, 8)), list(range(24, 184, 16)),
        ]  # fmt: skip
        assert [skip[0].in_channels for skip in net.skips] == [45, 104, 184]
        assert net.head.in_channels == 1 + 12 + 24 + 24
        at_head = []
        net.head.register_forward_hook(lambda _, inputs, output: at_head.append(output.shape))
        assert net(torch.empty(1, 1, 32, 16, 24)).shape == (1, 2, 32, 16, 24)
        assert at_head == [(1, 2, 16, 8, 12)]


def test_dropout_leaves_out_half_of_the_maps_in_the_whole_batch():
    torch.manual_seed(0)
    drop = BatchwiseDropout(0.5)
    x = torch.rand(3, 8, 4, 4, 4) + 1
    patterns = set()
    for _ in range(20):
        y = drop(x)
        left = y.flatten(2).ne(0).all(2)
        assert (left == left[0]).all()
        assert int(left[0].sum()) == 4
        torch.testing.assert_close(y[:, left[0]], 2 * x[:, left[0]])
        assert not y[:, ~left[0]].any()
        patterns.add(tuple(left[0].tolist()))
    assert len(patterns) > 10
    assert drop.eval()(x) is x


def test_dropout_follows_every_unit_but_the_last_of_a_stack():
    net = DenseVNet(3, 1, 2, growth=1)
    for stack in net.stacks:
        drops = [isinstance(unit[-1], BatchwiseDropout) for unit in stack.units]
        assert drops == [True] * (len(drops) - 1) + [False]
    assert not any(isinstance(m, BatchwiseDropout) for m in DenseVNet(3, 1, 2, growth=1, dropout=0.0).modules())


def test_steps_pad_as_same_in_tensorflow():
    """At even sizes SAME pads `(kernel - 2) // 2` in front; what reaches outside does not count in a mean."""
    torch.manual_seed(0)
    net = DenseVNet(3, 1, 2, growth=1)
    x = torch.randn(1, 1, 8, 8, 8)
    means = net.image[0](x)
    assert means.shape[2:] == (4, 4, 4)
    torch.testing.assert_close(means[0, 0, 1, 2, 0], x[0, 0, 2:5, 4:7, 0:3].mean())
    torch.testing.assert_close(means[0, 0, 3, 3, 3], x[0, 0, 6:, 6:, 6:].mean())
    stem = net.stem[0]
    padded = F.pad(x, (1, 2) * 3)
    torch.testing.assert_close(stem(x)[0, :, 0, 3, 1], (stem.weight * padded[0, :, 0:5, 6:11, 2:7]).sum((1, 2, 3, 4)))


def test_prior_is_added_to_the_logits_where_it_lies():
    torch.manual_seed(0)
    net = DenseVNet(3, 1, 3, growth=1, prior=2).eval()
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        without = net(x)
        net.prior[0, 1, 0] = 5.0
        added = net(x) - without
    torch.testing.assert_close(added[0, 1, :3], torch.full((3, 16, 16), 5.0))
    torch.testing.assert_close(added[0, 1, 13:], torch.zeros(3, 16, 16), rtol=0, atol=1e-5)
    torch.testing.assert_close(added[0, (0, 2)], torch.zeros(2, 16, 16, 16), rtol=0, atol=1e-5)
    net(x).square().mean().backward()
    assert net.prior.grad.ne(0).all()
    assert count(net) - count(DenseVNet(3, 1, 3, growth=1)) == 3 * 2**3


def test_2d_and_bad_sides_are_refused():
    with pytest.raises(StudyError, match="DenseVNet exists only in 3D"):
        DenseVNet(2, 1, 2)
    with pytest.raises(ValueError, match="needs sides of multiples"):
        DenseVNet(3, 1, 2, growth=1)(torch.zeros(1, 1, 16, 16, 12))
