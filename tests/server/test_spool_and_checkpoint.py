"""What is on disk between two moments is whole, or does not count."""

import json
from pathlib import Path

import numpy as np
import pytest

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
