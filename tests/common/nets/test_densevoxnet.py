"""DenseVoxNet against the released prototxt: numbers by kind of layer, connections, auxiliary output."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.errors import StudyError
from common.nets.dense import DenseBlock
from common.nets.densevoxnet import DenseVoxNet


def count(net: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(p.numel() for m in net.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False))


# Sums over the layers of train_densenet.prototxt and deploy.prototxt of the authors, 1 channel, 3 classes.
def test_parameters_of_the_released_net_by_kind():
    with torch.device("meta"):
        net, deployed = DenseVoxNet(3, 1, 3), DenseVoxNet(3, 1, 3, deep_supervision=False)
    assert count(net, nn.Conv3d) == 1_316_630
    assert count(net, nn.BatchNorm3d) == 8_320
    assert count(net, nn.ConvTranspose3d) == 3_015_040
    assert count(net, nn.Module) == 4_339_990
    assert count(deployed, nn.Module) == 4_339_315


def test_every_unit_sees_all_maps_before_it():
    torch.manual_seed(0)
    net = DenseVoxNet(3, 1, 2, width=4, dropout=0.0).eval()
    block = net.fine[0]
    assert isinstance(block, DenseBlock)
    assert len(block.units) == 12
    x = torch.randn(1, 4, 6, 5, 4)
    maps = block(x)
    assert maps.shape[1] == 4 + 12 * 3
    torch.testing.assert_close(maps[:, :4], x, rtol=0, atol=0)
    for i, unit in enumerate(block.units):
        end = 4 + 3 * i
        torch.testing.assert_close(maps[:, end : end + 3], unit(maps[:, :end]))
        assert unit[2].weight.abs().sum((0, 2, 3, 4)).all()


def test_blocks_do_not_write_into_what_other_units_see():
    torch.manual_seed(0)
    net = DenseVoxNet(3, 1, 2, width=4, norm="none", dropout=0.0)
    x = torch.randn(1, 4, 4, 4, 4)
    before = x.clone()
    torch.testing.assert_close(net.fine[0](x)[:, :4], before, rtol=0, atol=0)


def test_auxiliary_output_starts_as_linear_interpolation_of_the_transition():
    torch.manual_seed(0)
    net = DenseVoxNet(3, 1, 3, width=4)
    assert net.head_weights == (1.0, 0.33)
    score, up = net.auxiliary
    coarse = score(torch.randn(1, 40, 5, 6, 4))
    expected = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
    # At the border interpolation repeats the last voxel, a transposed convolution sees nothing beyond it.
    inside = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(up(coarse)[inside], expected[inside])
    assert [h.shape for h in net(torch.randn(1, 1, 8, 12, 16))] == [(1, 3, 8, 12, 16)] * 2


def test_auxiliary_output_is_blind_to_the_second_block():
    net = DenseVoxNet(3, 1, 3, width=4)
    net(torch.randn(2, 1, 8, 8, 8))[1].sum().backward()
    assert net.stem.weight.grad.any()
    assert all(p.grad is None for p in net.coarse.parameters())


def test_2d_and_bad_sides_are_refused():
    with pytest.raises(StudyError, match="DenseVoxNet exists only in 3D"):
        DenseVoxNet(2, 1, 2)
    net = DenseVoxNet(3, 1, 2, width=4)
    with pytest.raises(ValueError, match="needs sides of multiples"):
        net(torch.zeros(1, 1, 8, 8, 6))
    with pytest.raises(ValueError, match="single voxel"):
        net(torch.zeros(1, 1, 4, 4, 4))
