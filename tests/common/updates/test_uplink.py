"""What a reply holds: exact sizes, weights again at the other end, and nothing decoded that was not asked for."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Message

from common import wire
from common.errors import WireError
from common.nets import build_net
from common.study import Study
from common.uplink import Uplink
from common.wire import ARRAYS, Flat, Schema, Task

UPDATES: list[Any] = ["full", "half", {"name": "half", "dtype": "bfloat16"}, "int8", {"name": "topk", "share": 0.3}]
EACH = pytest.mark.parametrize("update", UPDATES, ids=str)


def study_of(update: Any, **more: Any) -> Study:
    return Study.model_validate(
        {
            "name": "uplink",
            "data": {"labels": ["liver"], "dimensions": 2},
            "plan": {"patch": [16, 16]},
            "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
            "training": {"steps": 1},
            "update": update,
            **more,
        }
    )


def weights(schema: Schema, seed: int) -> Flat:
    torch.manual_seed(seed)
    flat = schema.pack(build_net(study_of("full")).state_dict())
    flat["float32"] += np.random.default_rng(seed).normal(0, 0.01, flat["float32"].size).astype(np.float32)
    return flat


def reply(arrays: dict[str, Any]) -> Message:
    wire.become(1, 1)
    asked = wire.instruction(1, study_of("full"), Task(run="r", round=1, kind="train"), None, None)
    wire.stamp(asked)
    return wire.train_reply(asked, arrays, {})


def trained(update: Any, **more: Any) -> tuple[Uplink, Flat, Flat, Flat]:
    """An uplink, the weights that came, those after training, and the arrays that leave."""
    uplink = Uplink.of(study_of(update, **more))
    base, after = weights(uplink.schema, 1), weights(uplink.schema, 2)
    arrays, _ = uplink.encode(after, base)
    return uplink, base, after, arrays


@EACH
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedbn"])
def test_what_is_no_parameter_crosses_bit_for_bit(update: Any, strategy: str) -> None:
    uplink, base, after, arrays = trained(update, strategy=strategy)
    assert {d: v.size for d, v in arrays.items()} == uplink.sizes
    assert sum(v.nbytes for v in arrays.values()) == uplink.nbytes
    read = uplink.decode(uplink.read(reply(arrays)), base)
    assert {d: (v.dtype, v.size) for d, v in read.items()} == {d: (v.dtype, v.size) for d, v in after.items()}
    for entry in uplink.schema.entries:
        one, two = read[entry.dtype][entry.place], after[entry.dtype][entry.place]
        if entry.kind != "parameter" or update == "full":
            assert one.tobytes() == two.tobytes()
        else:
            change = np.abs(two - base[entry.dtype][entry.place])
            assert (np.abs(one - two) <= change.max(initial=0) + 1e-6).all()


def test_full_is_the_flat_array_itself() -> None:
    """No copy, no byte more or less than without any form of update."""
    uplink, base, after, arrays = trained("full")
    assert all(arrays[d] is after[d] for d in after)
    assert (uplink.sizes, uplink.nbytes) == (uplink.schema.sizes, uplink.schema.nbytes)
    assert uplink.decode(arrays, base) is arrays


@EACH
def test_what_was_left_unsaid_and_what_was_read_make_the_change(update: Any) -> None:
    uplink = Uplink.of(study_of(update))
    base, after = weights(uplink.schema, 1), weights(uplink.schema, 2)
    before = np.random.default_rng(7).normal(0, 1e-3, uplink.coded).astype(np.float32)
    arrays, left = uplink.encode(after, base, before)
    assert (left is not None) == uplink.feedback == (update not in UPDATES[:3])
    if left is None:
        return
    at = np.concatenate([np.arange(p.start, p.stop) for p in uplink.schema.places("parameter")])
    wanted = (after["float32"][at] - base["float32"][at]) + before
    read = uplink.decode(arrays, base)["float32"][at].astype(np.float64) - base["float32"][at]
    np.testing.assert_allclose(read + left, wanted, atol=2e-7)
    assert np.abs(left).max() < np.abs(wanted).max()


def test_a_tenth_of_it_is_what_a_reply_has() -> None:
    """By hand: 30 % of the parameters at 6 bytes, the rest of the net at its own."""
    uplink, *_ = trained({"name": "topk", "share": 0.3})
    n = sum(e.size for e in uplink.schema.entries if e.kind == "parameter")
    others = sum(e.size for e in uplink.schema.entries if e.kind == "buffer" and e.dtype == "float32")
    k = -(-3 * n // 10)
    assert uplink.sizes == {"int64": uplink.schema.sizes["int64"], "float32": others, "uint32": k, "float16": k}
    assert uplink.coded == n


WRONG: dict[str, tuple[Any, Any]] = {
    "a scale that is no number": ("int8", lambda a: a["float32"].__setitem__(-1, np.nan)),
    "an infinite scale": ("int8", lambda a: a["float32"].__setitem__(-1, np.inf)),
    "a negative scale": ("int8", lambda a: a["float32"].__setitem__(-1, -1.0)),
    "-128": ("int8", lambda a: a["int8"].__setitem__(0, -128)),
    "an infinite half": ("half", lambda a: a["float16"].__setitem__(0, np.inf)),
    "bits of an infinite bfloat16": (UPDATES[2], lambda a: a["uint16"].__setitem__(0, 0x7F80)),
    "a place beyond the end": (UPDATES[4], lambda a: a["uint32"].__setitem__(-1, 2**32 - 1)),
    "a place that stands twice": (UPDATES[4], lambda a: a["uint32"].__setitem__(1, a["uint32"][0])),
    "places in another order": (UPDATES[4], lambda a: a.__setitem__("uint32", a["uint32"][::-1].copy())),
    "an infinite running mean": (UPDATES[4], lambda a: a["float32"].__setitem__(0, -np.inf)),
    "one value too few": ("int8", lambda a: a.__setitem__("int8", a["int8"][1:])),
    "one scale too many": ("int8", lambda a: a.__setitem__("float32", np.append(a["float32"], np.float32(1)))),
    "more places than values": (UPDATES[4], lambda a: a.__setitem__("uint32", np.append(a["uint32"], np.uint32(1)))),
    "no values": ("half", lambda a: a.pop("float16")),
    "weights instead of a change": ("int8", lambda a: a.__setitem__("float32", np.ones(5000, np.float32))),
    "an array more": ("full", lambda a: a.__setitem__("int8", np.zeros(3, np.int8))),
}


@pytest.mark.parametrize("what", WRONG)
def test_malicious_arrays_are_refused(what: str) -> None:
    update, spoil = WRONG[what]
    uplink, _, _, arrays = trained(update)
    arrays = {d: v.copy() for d, v in arrays.items()}
    uplink.read(reply(arrays))
    spoil(arrays)
    with pytest.raises(WireError):
        uplink.read(reply(arrays))


def test_another_dtype_under_the_same_name_is_refused() -> None:
    uplink, _, _, arrays = trained("half")
    message = reply(arrays)
    record = message.content[ARRAYS]
    array = record["float16"]  # type: ignore[index]
    record["float16"] = Array("uint16", array.shape, array.stype, array.data)  # type: ignore[index]
    with pytest.raises(WireError, match="form"):
        uplink.read(message)


def test_scales_that_would_make_weights_infinite_are_refused() -> None:
    """Each is finite itself, so only their product with the numbers shows it."""
    uplink, base, _, arrays = trained("int8")
    arrays["float32"][-1] = np.finfo(np.float32).max
    with pytest.raises(WireError, match="infinite"):
        uplink.decode(uplink.read(reply(arrays)), base)


def test_a_change_that_is_not_finite_does_not_leave() -> None:
    uplink, base, after, _ = trained("int8")
    after["float32"][0] = np.nan
    with pytest.raises(WireError, match="NaN"):
        uplink.encode(after, base)


def test_the_same_bits_come_out_of_a_serialised_reply() -> None:
    """The coordinator's decoder and the site's own, of which the rest depends, agree to the last bit."""
    for update in UPDATES[1:]:
        uplink, base, _, arrays = trained(update)
        here, there = uplink.decode(arrays, base), uplink.decode(uplink.read(reply(arrays)), base)
        assert all(here[d].tobytes() == there[d].tobytes() for d in here)
