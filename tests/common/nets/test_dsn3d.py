"""3D DSN against the released prototxt: parameters, three supervised depths, linear way up."""

import pytest
import torch
from torch import nn

from common.errors import StudyError
from common.losses.deep_supervision import DeepSupervision
from common.losses.distribution import CELoss
from common.nets.dsn3d import DSN3D


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# Sums over the layers of 3D-DSN/train.prototxt of the authors, 1 channel, 3 classes; without its auxiliary layers.
def test_parameters_of_the_released_net():
    with torch.device("meta"):
        assert count(DSN3D(3, 1, 3)) == 7_026_761
        assert count(DSN3D(3, 1, 3, deep_supervision=False)) == 6_240_131


def test_three_outputs_at_full_resolution_weighed_five_one_two():
    torch.manual_seed(0)
    net = DSN3D(3, 1, 2, width=2)
    outputs = net(torch.randn(1, 1, 16, 8, 24))
    assert [o.shape for o in outputs] == [(1, 2, 16, 8, 24)] * 3
    target = torch.randint(0, 2, (1, 16, 8, 24))
    ce = CELoss()
    main, one, two = (ce(o, target) for o in outputs)
    torch.testing.assert_close(DeepSupervision(ce, net.head_weights)(outputs, target), 5 * main + one + 2 * two)


@pytest.mark.parametrize(("head", "reached"), [(0, 4), (1, 2), (2, 3)])
def test_each_output_trains_the_groups_up_to_its_depth(head, reached):
    torch.manual_seed(0)
    net = DSN3D(3, 1, 2, width=2)
    net(torch.randn(1, 1, 16, 16, 16))[head].square().sum().backward()
    assert [g[0].weight.grad is not None for g in net.groups] == [i < reached for i in range(4)]


def test_way_up_has_no_activation():
    torch.manual_seed(0)
    net = DSN3D(3, 1, 2, width=2).double()
    a, b, none = torch.randn(3, 1, 16, 2, 3, 2, dtype=torch.float64).unbind()
    none = torch.zeros_like(none)
    torch.testing.assert_close(net.main(a + b) + net.main(none), net.main(a) + net.main(b))
    assert not torch.allclose(net.main(a), net.main(none))


def test_2d_and_bad_sides_are_refused():
    with pytest.raises(StudyError, match="3D DSN exists only in 3D"):
        DSN3D(2, 1, 2)
    net = DSN3D(3, 1, 2, width=2)
    with pytest.raises(ValueError, match="needs sides of multiples"):
        net(torch.zeros(1, 1, 16, 16, 12))
