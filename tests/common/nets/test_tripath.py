"""Tri-path net against 2D convolutions slice by slice, and against the planes that a voxel may see."""

import pytest
import torch
from torch import nn

from common.errors import StudyError
from common.nets.tripath import TriPath


def test_parameters_by_arithmetic():
    with torch.device("meta"):
        net = TriPath(3, 1, 2)
    pathway = 9 * 32 + 32 + 3 * (9 * 32 * 32 + 32)
    assert sum(p.numel() for p in net.parameters()) == 3 * pathway + 96 * 128 + 128 + 128 * 2 + 2


@pytest.mark.parametrize("across", [0, 1, 2])
def test_a_pathway_is_a_2d_net_on_each_slice_across_its_axis(across):
    torch.manual_seed(0)
    path = TriPath(3, 2, 2, width=3).paths[across].eval()
    flat = [nn.Conv2d(3 if i else 2, 3, 3, padding=2**i, dilation=2**i) for i in range(4)]
    for i, conv in enumerate(flat):
        conv.weight.data = path[3 * i].weight.data.squeeze(2 + across)
        conv.bias.data = path[3 * i].bias.data
    x = torch.randn(1, 2, 7, 6, 5)
    with torch.no_grad():
        for k in range(x.shape[2 + across]):
            y = x.select(2 + across, k)
            for conv in flat:
                y = conv(y).relu()
            torch.testing.assert_close(path(x).select(2 + across, k), y)


def test_a_voxel_sees_three_planes_of_31_voxels():
    torch.manual_seed(0)
    net = TriPath(3, 1, 2, width=2)
    x = torch.randn(1, 1, 33, 33, 33, requires_grad=True)
    with torch.no_grad():
        for p in net.parameters():
            # Positive throughout, so that no ReLU hides a voxel.
            p.abs_()
    net(x.exp())[0, 0, 16, 16, 16].backward()
    seen = x.grad[0, 0].ne(0)
    planes = torch.zeros_like(seen)
    inside = slice(1, 32)
    planes[16, inside, inside] = planes[inside, 16, inside] = planes[inside, inside, 16] = True
    assert torch.equal(seen, planes)


def test_2d_is_refused():
    with pytest.raises(StudyError, match="tri-path net exists only in 3D"):
        TriPath(2, 1, 2)
