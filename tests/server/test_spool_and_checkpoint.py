"""What is on disk between two moments is whole, or does not count."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.errors import CheckpointError
from common.wire import Entry, Schema
from server.checkpoint import Checkpoints, State
from server.events import Events, read_events
from server.spool import Spool

SCHEMA = Schema((Entry("w", "float32", (2, 3), 0, 6),))
FLAT = {"float32": np.arange(6, dtype="float32")}


def test_a_torn_or_foreign_reply_does_not_count(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SCHEMA)
    spool.add(3, "a", FLAT, {"loss": 0.5})
    spool.add(3, "b", FLAT, {"loss": 0.5})
    spool.add(3, "c", {"float32": np.arange(7, dtype="float32")}, {})
    torn = tmp_path / "round-00003" / "b.safetensors"
    torn.write_bytes(torn.read_bytes()[:-4])
    found = spool.replies(3, ("c", "b", "a"))
    assert [(r.site, r.metrics) for r in found] == [("a", {"loss": 0.5})]
    np.testing.assert_array_equal(found[0].read("float32", 2, 5), [2, 3, 4])
    assert spool.replies(4, ("a",)) == []


def test_arrays_of_two_types_are_read_from_where_they_lie(tmp_path: Path) -> None:
    """Oracle: safetensors' own reading of the file."""
    schema = Schema((Entry("w", "float32", (1001,), 0, 1001), Entry("c", "int64", (7,), 0, 7)))
    values = np.random.default_rng(0).normal(size=1001).astype("float32")
    Spool(tmp_path, schema).add(1, "a", {"float32": values, "int64": np.arange(7) * 2**40}, {"loss": 0.5})
    (reply,) = Spool(tmp_path, schema).replies(1, ("a",))
    whole = load_file(reply.path)
    for dtype, start, stop in (("float32", 0, 1001), ("float32", 998, 1001), ("int64", 0, 7), ("int64", 3, 4)):
        found = reply.read(dtype, start, stop)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, whole[dtype][start:stop])


def test_a_reply_of_another_type_does_not_count(tmp_path: Path) -> None:
    Spool(tmp_path, SCHEMA).add(1, "a", {"float32": np.arange(6, dtype="float64")}, {})
    assert Spool(tmp_path, SCHEMA).replies(1, ("a",)) == []


def test_a_reply_that_shrinks_after_it_was_found_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    Spool(tmp_path, SCHEMA).add(1, "a", FLAT, {})
    (reply,) = Spool(tmp_path, SCHEMA).replies(1, ("a",))
    reply.path.write_bytes(reply.path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="ends too early; put the run's folder back"):
        reply.read("float32", 0, 6)


def test_only_newest_and_best_weights_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "d", SCHEMA)
    for number, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
        checkpoints.write(State("d", round=number, best_round=best), {"float32": FLAT["float32"] + number})
    assert sorted(p.stem for p in tmp_path.glob("*.safetensors")) == ["round-00002", "round-00004"]
    np.testing.assert_array_equal(checkpoints.weights(2)["float32"], FLAT["float32"] + 2)
    assert checkpoints.state() == State("d", round=4, best_round=2)


def test_another_study_and_damage_are_refused_with_a_remedy(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "a" * 64, SCHEMA).write(State("a" * 64), FLAT)
    with pytest.raises(CheckpointError, match="the study was changed"):
        Checkpoints(tmp_path, "b" * 64, SCHEMA).state()
    own = Checkpoints(tmp_path, "a" * 64, SCHEMA)
    own.path(0).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="damaged"):
        own.weights(0)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        own.state()


def test_events_of_undone_rounds_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = Events(path)
    for number in (1, 2, 3):
        events.append("trained", round=number, site="a")
    with path.open("a") as file:
        file.write('{"event": "tra')
    events = Events(path)
    events.append("resumed", after=2)
    events.append("trained", round=3, site="b")
    kept = [(e["event"], e.get("round"), e.get("site")) for e in read_events(path)]
    assert kept == [("trained", 1, "a"), ("trained", 2, "a"), ("resumed", None, None), ("trained", 3, "b")]
    assert all(json.loads(line) for line in path.read_text().splitlines())
