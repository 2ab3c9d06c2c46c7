"""The gates of a site, as pure functions and through the ClientApp that all engines share."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from pydantic import ValidationError

from client.gates import float_norm, gate_in, gate_out
from client.open_site import Workplace
from client.site import Limits, SiteConfig
from common import wire
from common.errors import WireError
from common.nets import build_net
from common.study import Study
from common.uplink import Uplink
from common.wire import ARRAYS, METRICS, TASK, Flat, Schema, Task

STUDY = Study.model_validate(
    {
        "name": "gates",
        "data": {"labels": ["liver"], "dimensions": 2},
        "plan": {"patch": [16, 16]},
        "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
        "training": {"steps": 1},
        "evaluation": {"metrics": ["dice"], "spread": "none"},
    }
)
SCHEMA = Schema.of(STUDY)
UPLINK = Uplink.of(STUDY)
TRAINED = {"num-examples": 3, "steps": 1, "loss": -0.5, "seconds": 0.1}
JOINED = {"train": 3, "validation": 1, "test": 1, "patients": 5, "steps": 1}
JUDGED = {"num-examples": 1, "dice": 0.5, "dice.liver": 0.5, "cases.liver": 1, "seconds": 0.1}


def weights() -> Flat:
    torch.manual_seed(1)
    return SCHEMA.pack(build_net(STUDY).state_dict())


def asked(kind: Any = "train", arrays: ArrayRecord | None = None) -> Message:
    wire.become(1, 1)
    part = "validation" if kind == "evaluate" else "train"
    message = wire.instruction(1, STUDY, Task(run="r", round=1, kind=kind, part=part), arrays, None)
    wire.stamp(message)
    return message


def test_the_norm_is_numpys_own() -> None:
    flat = weights()
    values = np.concatenate([flat["float32"], np.full(3_000_000, 0.25, np.float32)])
    found = float_norm({"float32": values, "int64": np.full(9, 10**15)})
    assert found == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-12)
    assert float_norm({}) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_one_value_that_is_not_finite_is_found(value: float, place: int) -> None:
    flat = weights()
    flat["float32"][place] = value
    assert not math.isfinite(float_norm(flat))
    with pytest.raises(WireError, match="NaN or infinite"):
        gate_in(SCHEMA, asked(arrays=wire.record(flat)), Limits())


def test_the_largest_floats_are_not_taken_for_infinite() -> None:
    flat = weights()
    flat["float32"][:] = np.finfo(np.float32).max
    with pytest.raises(WireError, match="norm"):
        gate_in(SCHEMA, asked(arrays=wire.record(flat)), Limits())


def test_the_norm_has_the_limit_of_the_site() -> None:
    flat = weights()
    norm = float_norm(flat)
    message = asked(arrays=wire.record(flat))
    assert gate_in(SCHEMA, message, Limits(norm=norm * 1.0001))["float32"].tobytes() == flat["float32"].tobytes()
    with pytest.raises(WireError, match=r"limits\.norm"):
        gate_in(SCHEMA, message, Limits(norm=norm * 0.9999))


@pytest.mark.parametrize("text", [0, -1, "inf", "nan"])
def test_a_limit_is_a_positive_number(text: Any) -> None:
    with pytest.raises(ValidationError):
        SiteConfig.model_validate({"name": "oslo", "data": ".", "limits": {"norm": text}})


def test_fresh_nets_are_far_below_the_usual_limit() -> None:
    """The largest built-in net at its usual size, before it has learnt anything."""
    study = Study.model_validate(
        {"name": "large", "data": {"labels": ["a"]}, "plan": {"patch": [64, 64, 64]}, "training": {"steps": 1}}
    )
    norm = float_norm(Schema.of(study).pack(build_net(study).state_dict()))
    assert 1 < norm < Limits().norm / 1000


Change = Callable[[dict[str, Array]], dict[str, Array]]


def array(values: Any, **changes: Any) -> Array:
    flat = np.asarray(values)
    form = {"dtype": str(flat.dtype), "shape": (flat.size,), "stype": wire.STYPE, "data": flat.tobytes(), **changes}
    return Array(**form)


WRONG_ARRAYS: dict[str, Change] = {
    "none": lambda a: {},
    "one missing": lambda a: {"float32": a["float32"]},
    "one more": lambda a: {**a, "more": a["float32"]},
    "by name": lambda a: {"conv.weight": a["float32"], "int64": a["int64"]},
    "shorter": lambda a: {**a, "float32": array(np.zeros(5, np.float32))},
    "bytes that are short": lambda a: {**a, "float32": Array("float32", a["float32"].shape, wire.STYPE, b"\0" * 8)},
    "ten gigabytes declared": lambda a: {**a, "float32": Array("float32", (2_500_000_000,), wire.STYPE, b"")},
    "negative shape": lambda a: {**a, "float32": Array("float32", (-1,), wire.STYPE, b"")},
    "another shape": lambda a: {
        **a,
        "float32": Array("float32", (1, SCHEMA.sizes["float32"]), wire.STYPE, a["float32"].data),
    },
    "float64": lambda a: {**a, "float32": array(np.zeros(SCHEMA.sizes["float32"]))},
    "objects": lambda a: {**a, "float32": Array("object", a["float32"].shape, wire.STYPE, a["float32"].data)},
    "numpy file": lambda a: {**a, "float32": Array("float32", a["float32"].shape, "numpy.ndarray", a["float32"].data)},
}


@pytest.mark.parametrize("wrong", WRONG_ARRAYS)
def test_no_other_arrays_come_in_or_leave(wrong: str) -> None:
    arrays = ArrayRecord(WRONG_ARRAYS[wrong](dict(wire.record(weights()))))
    with pytest.raises(WireError):
        gate_in(SCHEMA, asked(arrays=arrays), Limits())
    reply = Message(RecordDict({ARRAYS: arrays, METRICS: MetricRecord(TRAINED)}), reply_to=asked())
    with pytest.raises(WireError):
        leave("train", reply)


def leave(kind: Any, reply: Message, site: str = "oslo") -> Message:
    task = Task(run="r", round=1, kind=kind, part="validation" if kind == "evaluate" else "train")
    return gate_out(UPLINK, STUDY, task, site, reply)


def replies() -> dict[str, Message]:
    return {
        "join": wire.site_reply(asked("join"), "oslo", JOINED),
        "train": wire.train_reply(asked(), weights(), TRAINED),
        "evaluate": wire.metrics_reply(asked("evaluate"), JUDGED),
    }


@pytest.mark.parametrize("kind", ["join", "train", "evaluate"])
def test_what_belongs_to_a_reply_leaves(kind: str) -> None:
    reply = replies()[kind]
    assert leave(kind, reply) is reply
    error = wire.error_reply(asked(kind), "E_DATA")
    assert leave(kind, error) is error


@pytest.mark.parametrize("kind", ["join", "train", "evaluate"])
@pytest.mark.parametrize("other", ["join", "train", "evaluate"])
def test_what_belongs_to_another_reply_does_not(kind: str, other: str) -> None:
    if kind != other:
        with pytest.raises(WireError):
            leave(kind, replies()[other])


SECRETS: dict[str, Callable[[RecordDict], Any]] = {
    "a metric more": lambda c: c[METRICS].__setitem__("dice.case-7", 0.5),
    "a metric less": lambda c: c[METRICS].__delitem__(next(iter(c[METRICS]))),
    "a metric that is a list": lambda c: c[METRICS].__setitem__(next(iter(c[METRICS])), [0.1, 0.2]),
    "NaN": lambda c: c[METRICS].__setitem__(next(iter(c[METRICS])), math.nan),
    "infinite": lambda c: c[METRICS].__setitem__(next(iter(c[METRICS])), math.inf),
    "a record more": lambda c: c.__setitem__("notes", ConfigRecord({"patient": "DOE^JOHN"})),
    "metrics in another place": lambda c: c.__setitem__("more", MetricRecord({"a": 1})),
    "no metrics": lambda c: c.__delitem__(METRICS),
    "text in place of metrics": lambda c: c.__setitem__(METRICS, ConfigRecord({"a": "b"})),
}


@pytest.mark.parametrize("kind", ["join", "train", "evaluate"])
@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_else_leaves(kind: str, secret: str) -> None:
    reply = replies()[kind]
    SECRETS[secret](reply.content)
    with pytest.raises(WireError):
        leave(kind, reply)


@pytest.mark.parametrize("record", [{"site": "bergen"}, {"site": "oslo", "path": "/data"}, {}])
def test_a_site_says_its_own_name_only(record: dict[str, str]) -> None:
    reply = replies()["join"]
    reply.content[TASK] = ConfigRecord(dict(record))
    with pytest.raises(WireError, match="own name"):
        leave("join", reply)


def test_no_text_leaves_as_an_error() -> None:
    reply = Message(Error(code=1, reason="FileNotFoundError: /data/DOE^JOHN"), reply_to=asked())
    with pytest.raises(WireError, match="closed list"):
        leave("train", reply)


def test_an_update_that_is_not_finite_does_not_leave() -> None:
    flat = weights()
    flat["float32"][3] = np.nan
    with pytest.raises(WireError, match="NaN"):
        leave("train", wire.train_reply(asked(), flat, TRAINED))


def test_the_net_keeps_its_weights_when_a_task_is_stopped_at_the_gate() -> None:
    place = Workplace(torch.device("cpu"))
    net, _, _ = place.take(STUDY, asked(arrays=wire.record(weights())), Limits())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    broken = weights()
    broken["float32"][:] = np.nan
    with pytest.raises(WireError):
        place.take(STUDY, asked(arrays=wire.record(broken)), Limits())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
