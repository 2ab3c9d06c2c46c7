"""UNet++ is MONAI's, deepest output first."""

import pytest
import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

from common.nets.unetpp import unetpp


@pytest.mark.parametrize("dimensions", [2, 3])
def test_parameters_are_monais_and_unused_heads_are_left_out(dimensions):
    features = [32, 64, 128, 256, 512, 32]
    with torch.device("meta"):
        theirs = BasicUNetPlusPlus(dimensions, 3, 4, features=features)
        ours, bare = unetpp(dimensions, 3, 4), unetpp(dimensions, 3, 4, deep_supervision=False)
    expected, found, least = (sum(p.numel() for p in net.parameters()) for net in (theirs, ours, bare))
    assert found == expected == least + 3 * (32 * 4 + 4)


@pytest.mark.parametrize("size", [(32, 48), (37, 33), (16, 17, 32)])
def test_outputs_are_monais_deepest_first_at_full_resolution(size):
    torch.manual_seed(1)
    theirs = BasicUNetPlusPlus(len(size), 2, 3, features=[4, 8, 16, 32, 64, 4], deep_supervision=True)
    torch.manual_seed(1)
    ours = unetpp(len(size), 2, 3, width=4)
    x = torch.randn(1, 2, *size)
    expected, found = theirs(x), ours(x)
    assert [tuple(t.shape) for t in found] == [(1, 3, *size)] * 4
    assert len(ours.head_weights) == len(found)
    for a, b in zip(found, reversed(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    main = ours.eval()(x)
    torch.testing.assert_close(main, theirs.eval()(x)[-1], rtol=0, atol=0)


def test_without_supervision_there_is_one_output():
    torch.manual_seed(2)
    supervised = unetpp(2, 1, 2, width=4)
    bare = unetpp(2, 1, 2, width=4, deep_supervision=False)
    bare.load_state_dict({n: t for n, t in supervised.state_dict().items() if n in bare.state_dict()})
    x = torch.randn(1, 1, 32, 32)
    assert not hasattr(bare, "head_weights")
    torch.testing.assert_close(bare(x), supervised.eval()(x))


@pytest.mark.parametrize("norm", ["instance", "batch", "group", "none"])
def test_norms(norm):
    net = unetpp(2, 1, 2, width=4, norm=norm)
    assert any(True for _ in net.buffers()) == (norm == "batch")
    assert net(torch.randn(1, 1, 32, 32))[0].isfinite().all()
    with pytest.raises(ValueError, match="the net needs sides of"):
        net(torch.zeros(1, 1, 15, 64))
