"""FCN with HED side outputs: HED's count, its supervision and its fusion."""

import pytest
import torch
from torch import nn

from common.losses.compound import DiceCELoss
from common.losses.deep_supervision import DeepSupervision
from common.nets.hed_fcn import HEDFCN


def test_parameter_count_is_heds():
    """VGG-16's convolutions, 5 side scores and the fusion; HED's fixed transposed convolutions are none here."""
    vgg, sides, fusion = 14_714_688, (64 + 128 + 256 + 512 + 512) + 5, 5 + 1
    with torch.device("meta"):
        net = HEDFCN(2, 3, 1)
    assert sum(p.numel() for p in net.parameters()) == vgg + sides + fusion == 14_716_171


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (1, 3)])
def test_training_supervises_fusion_and_five_sides_at_full_size(size):
    torch.manual_seed(0)
    net = HEDFCN(2, 1, 3, width=2)
    x = torch.randn(2, 1, *size)
    outputs = net(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, *size)] * 6
    assert net.head_weights == (1,) * 6
    # It begins as the mean of the sides.
    torch.testing.assert_close(outputs[0], torch.stack(outputs[1:]).mean(dim=0))
    torch.testing.assert_close(net.eval()(x), outputs[0])


def test_each_side_has_its_own_stage():
    """The loss of one side alone reaches its stage and those before it, not those after."""
    torch.manual_seed(0)
    for side in range(5):
        net = HEDFCN(2, 1, 2, width=2)
        net(torch.randn(1, 1, 32, 32))[1 + side].square().mean().backward()
        reached = [any(p.grad is not None for p in stage.parameters()) for stage in net.stages]
        assert reached == [True] * (side + 1) + [False] * (4 - side)


def test_loss_is_the_sum_over_all_outputs():
    torch.manual_seed(0)
    net = HEDFCN(2, 1, 2, width=2)
    x, target = torch.randn(1, 1, 32, 32), torch.randint(0, 2, (1, 32, 32))
    outputs = net(x)
    loss = DiceCELoss()
    total = DeepSupervision(loss, net.head_weights)(outputs, target)
    torch.testing.assert_close(total, sum(loss(o, target) for o in outputs))


def test_coarse_sides_lie_over_the_image_whatever_its_size():
    """A pooled ramp that is enlarged again runs along the ramp."""
    net = HEDFCN(2, 1, 1, width=1)
    for level, side in enumerate(net.sides):
        nn.init.ones_(side.weight)
        nn.init.zeros_(side.bias)
        net.stages[level] = nn.Identity()
        net.sides[level] = nn.Identity()
    net.pool = nn.AvgPool2d(2, ceil_mode=True)
    ramp = torch.arange(64.0)[:, None].expand(1, 1, 64, 64).contiguous()
    for output in net(ramp)[1:]:
        torch.testing.assert_close(output[..., 8:56, :], ramp[..., 8:56, :])


def test_a_single_voxel_to_normalise_is_refused():
    with pytest.raises(ValueError, match="single voxel"):
        HEDFCN(2, 1, 2, width=2, norm="instance")(torch.randn(1, 1, 16, 16))
