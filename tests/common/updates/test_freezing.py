"""Frozen parameters: not moved, not sent, and whole again at the coordinator, whatever the strategy."""

from typing import Any

import pytest
import torch

from client.training import make_optimizer
from common.errors import StudyError
from common.nets import build_net
from common.study import Study
from common.study_explain import facts, words
from common.uplink import Uplink
from common.wire import Schema


def study_of(*patterns: str, **more: Any) -> Study:
    return Study.model_validate(
        {
            "name": "frozen",
            "data": {"labels": ["liver"], "dimensions": 2},
            "plan": {"patch": [16, 16]},
            "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
            "training": {"steps": 1, "freeze": patterns},
            **more,
        }
    )


def test_the_optimiser_has_the_others_alone() -> None:
    study = study_of("down.*")
    net = build_net(study)
    optimizer = make_optimizer(net, study.training)
    there = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        assert (id(parameter) in there) == parameter.requires_grad == (not name.startswith("down."))


@pytest.mark.parametrize("update", ["full", "int8"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_reply_lacks_them_and_nothing_else(update: str, strategy: str) -> None:
    """Sizes by the net itself; the weights that come back have them from the weights that went out."""
    study = study_of("down.*", update=update, strategy=strategy)
    net = build_net(study)
    down = sum(p.numel() for name, p in net.named_parameters() if name.startswith("down."))
    free = sum(p.numel() for name, p in net.named_parameters()) - down
    floats = sum(b.numel() for b in net.buffers() if b.dtype == torch.float32)
    control = free if strategy == "scaffold" else 0
    uplink = Uplink.of(study)
    assert uplink.schema.sizes["float32"] == down + free + floats + control
    scales = -(-free // 256)
    assert uplink.sizes["float32"] == floats + control + (free if update == "full" else scales)
    assert uplink.sizes.get("int8", 0) == (0 if update == "full" else free)

    base, after = uplink.schema.pack(net.state_dict()), uplink.schema.pack(build_net(study).state_dict())
    read = uplink.decode(uplink.encode(after, base)[0], base)
    for entry in uplink.schema.entries:
        one = read[entry.dtype][entry.place]
        if entry.name.startswith("down.") and entry.kind == "frozen":
            assert one.tobytes() == base[entry.dtype][entry.place].tobytes()
        elif update == "full" or entry.kind == "buffer":
            assert one.tobytes() == after[entry.dtype][entry.place].tobytes()


@pytest.mark.parametrize("update", ["full", "int8"])
def test_people_and_the_ledger_are_told_of_them(update: str) -> None:
    study = study_of("down.*", update=update)
    net = build_net(study)
    down = [p.numel() for name, p in net.named_parameters() if name.startswith("down.")]
    assert Uplink.of(study).tensors == len(net.state_dict()) - len(down)
    told = words(study, facts(study))
    assert f"not trained, not sent back  down.*: {sum(down):,} of the parameters" in told
    assert "(of those that are trained)" in told
    assert "not sent back" not in words(study_of(), facts(study_of()))


def test_patterns_that_fit_nothing_or_everything_are_refused() -> None:
    with pytest.raises(StudyError, match=r"encoder\.\* fits no parameter"):
        Schema.of(study_of("down.*", "encoder.*"))
    with pytest.raises(StudyError, match="nothing of the net is left"):
        Schema.of(study_of("*"))
