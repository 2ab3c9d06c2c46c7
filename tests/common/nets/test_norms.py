"""The norm switch of the fully convolutional nets: each choice trains, and only one of them has buffers."""

import pytest
import torch
from torch import nn

from common.cards import NetCard, card_of
from common.names import NETS

NAMES = ("vnet", "fcn", "cmr_fcn", "hed_fcn", "context_net", "nopoolaspp", "lungnet", "highresnet", "dilated_unet")
KINDS = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "group": nn.GroupNorm}


@pytest.mark.parametrize("norm", [*KINDS, "none"])
@pytest.mark.parametrize("name", NAMES)
def test_each_norm_trains_and_only_batch_has_buffers(name, norm):
    make = NETS.get(name)
    card = card_of(make)
    assert isinstance(card, NetCard)
    torch.manual_seed(0)
    net = make(2, 1, 3, **{**card.small, "norm": norm})
    assert any(True for _ in net.buffers()) == (norm == "batch")
    found = {type(m) for m in net.modules()} & set(KINDS.values())
    assert found == ({KINDS[norm]} if norm in KINDS else set())
    outputs = net(torch.randn(2, 1, 32, 48))
    sum(o.square().mean() for o in (outputs if isinstance(outputs, list) else [outputs])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
