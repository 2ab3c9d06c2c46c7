"""The densely connected, multi-path and multi-organ nets with each normalisation."""

import pytest
import torch
from torch import nn

from common.cards import NetCard, card_of
from common.names import NETS

SIZES = {
    "densevoxnet": (8, 8, 8),
    "skipdenseseg": (16, 16, 32),
    "densevnet": (16, 16, 16),
    "hyperdensenet": (4, 4, 4),
    "dsn3d": (16, 16, 16),
    "tripath": (8, 8, 8),
    "organ_heads": (8, 8, 8),
}
KINDS = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d, "group": nn.GroupNorm}


@pytest.mark.parametrize("norm", ["instance", "batch", "group", "none"])
@pytest.mark.parametrize("name", SIZES)
def test_each_norm_trains_and_only_batch_has_buffers(name, norm):
    torch.manual_seed(0)
    card = card_of(NETS.get(name))
    assert isinstance(card, NetCard)
    net = NETS.get(name)(3, card.channels, 3, **card.small, norm=norm)
    assert any(True for _ in net.buffers()) == (norm == "batch")
    found = {type(m) for m in net.modules()} & set(KINDS.values())
    assert found == ({KINDS[norm]} if norm in KINDS else set())
    outputs = net(torch.randn(1, card.channels, *SIZES[name]))
    heads = outputs if isinstance(outputs, list) else [outputs]
    sum(h.square().mean() for h in heads).backward()
    # A bias before a normalisation is taken out again by it: its gradient is rounding error or 0.
    silent = [n for n, p in net.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]
    assert silent == []
