"""The queue of runs on disk, and the thread that works on them. Keys and signatures are real."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.errors import RoundError, StorageError, StudyError
from common.manifests import SignedStudy, sign_study
from common.study import Study
from server.enrolment.identity import Coordinator, create
from server.exchange import Stopped
from server.service.queue import WHY, Queue, RunRecord, progress
from server.service.worker import Worker

STUDY = Study.model_validate(
    {"name": "s", "data": {"labels": ["a"], "dimensions": 2}, "plan": {"patch": [16, 16]}, "training": {"steps": 2},
     "net": {"name": "unet", "width": 2, "levels": 2}}
)  # fmt: skip


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    return create(tmp_path_factory.mktemp("fed") / "home", ["127.0.0.1"], 8443, b"")


def signed(coordinator: Coordinator, run: str, later: int = 0, study: Study = STUDY) -> SignedStudy:
    key = coordinator.unlock(b"").signing
    now = datetime.now(UTC) + timedelta(seconds=later)
    return sign_study(key, coordinator.id, study, run, coordinator.card.round_key, now, now + timedelta(days=1))


class Runs:
    """A queue in a folder."""

    def __init__(self, folder: Path, coordinator: Coordinator) -> None:
        self.folder, self.coordinator = folder, coordinator
        self.queue = Queue(folder, coordinator)

    def add(self, run: str, later: int = 0, study: Study = STUDY) -> RunRecord:
        return self.queue.add(signed(self.coordinator, run, later, study), study.name, study.rounds.number, None)

    def again(self) -> Queue:
        """As the next process sees it."""
        return Queue(self.folder, self.coordinator)

    def take(self, queue: Queue | None = None) -> str:
        record = (queue or self.queue).take(threading.Event())
        assert record is not None
        return record.name


@pytest.fixture
def runs(tmp_path: Path, coordinator: Coordinator) -> Runs:
    return Runs(tmp_path / "runs", coordinator)


def test_runs_are_taken_in_order_and_the_interrupted_one_first(runs: Runs) -> None:
    for name in ("z", "a", "m"):
        runs.add(name)
    assert runs.take() == "z"
    # The process dies; the next one finds all of it.
    after = runs.again()
    assert after.all() == runs.queue.all()
    assert runs.take(after) == "z"
    after.mark("z", "finished")
    assert [runs.take(after), runs.take(after)] == ["a", "a"]  # nobody ended it
    after.mark("a", "failed", "why")
    assert runs.take(after) == "m"
    assert after.signed("m").canonical() == runs.queue.signed("m").canonical()


def test_a_resumed_run_goes_to_the_end(runs: Runs) -> None:
    for name in ("a", "b"):
        runs.add(name)
    runs.take()
    runs.queue.abort("a")
    record = runs.queue.resume("a")
    assert (record.status, record.why) == ("queued", None)
    assert [r.name for r in runs.again().all()] == ["b", "a"]


def test_what_a_run_is_decides_what_can_be_done_with_it(runs: Runs) -> None:
    runs.add("a")
    with pytest.raises(StudyError, match="a is queued: only one that failed or was aborted"):
        runs.queue.resume("a")
    with pytest.raises(StudyError, match="a is queued already"):
        runs.add("a")
    runs.queue.abort("a")
    with pytest.raises(StudyError, match="a is aborted: only one that waits"):
        runs.queue.abort("a")
    with pytest.raises(StudyError, match="fedscan run resume a"):
        runs.add("a", -60)
    with pytest.raises(StudyError, match="of another study"):
        runs.add("a", 60, STUDY.model_copy(update={"seed": 2}))
    with pytest.raises(StudyError, match="there is no run b"):
        runs.queue.resume("b")


def test_a_later_order_lets_a_failed_run_go_on(runs: Runs) -> None:
    first = runs.add("a")
    runs.queue.mark("a", "failed", "the order ended")
    renewed = runs.add("a", 60)
    assert renewed.status == "queued"
    assert renewed.created == first.created
    order = json.loads(runs.queue.signed("a").order.body)
    assert datetime.fromisoformat(order["issued"]) > first.created


def test_a_damaged_record_is_left_alone(runs: Runs) -> None:
    runs.add("a")
    runs.add("b")
    (runs.folder / "a" / "run.json").write_text('{"name": "a"')
    (runs.folder / "c").mkdir()
    (runs.folder / "c" / "run.json").write_bytes((runs.folder / "b" / "run.json").read_bytes())
    after = runs.again()
    assert [r.name for r in after.all()] == ["b"]
    assert len(after.damaged) == 2
    assert "is not JSON" in after.damaged[0]
    assert "is the record of b" in after.damaged[1]
    with pytest.raises(Exception, match="holds a damaged run"):
        after.add(signed(runs.coordinator, "a"), "s", 1, None)


def test_a_long_reason_is_cut(runs: Runs) -> None:
    runs.add("a")
    runs.queue.mark("a", "failed", "x" * (WHY + 1))
    assert runs.again().get("a").why == "x" * WHY


def test_progress_comes_from_the_checkpoint(tmp_path: Path) -> None:
    assert progress(tmp_path).round == 0
    (tmp_path / "checkpoints").mkdir()
    state = tmp_path / "checkpoints" / "state.json"
    state.write_text(json.dumps({"round": 4, "best_round": 3, "best_metric": 0.5}))
    assert progress(tmp_path).model_dump() == {"round": 4, "best_round": 3, "best_metric": 0.5}
    state.write_text('{"round": ')
    assert progress(tmp_path).round == 0


# The worker


class Office:
    """A worker whose work is the test's."""

    def __init__(self, runs: Runs, work: Callable[[RunRecord, threading.Event], object]) -> None:
        self.done: list[str] = []
        self.queue = runs.queue
        self.worker = Worker(runs.queue, work, lambda r: self.done.append(r.name))
        self.worker.start()

    def until(self, name: str, status: str) -> RunRecord:
        end = time.monotonic() + 10
        while self.queue.get(name).status != status:
            assert time.monotonic() < end, self.queue.all()
            time.sleep(0.01)
        return self.queue.get(name)


def waits(record: RunRecord, leave: threading.Event) -> None:
    assert leave.wait(10)
    raise Stopped("left")


def test_one_run_at_a_time_and_errors_are_kept(runs: Runs) -> None:
    going: list[str] = []

    def work(record: RunRecord, leave: threading.Event) -> None:
        going.append(record.name)
        assert len(going) == 1
        time.sleep(0.05)
        going.clear()
        if record.name == "quorum":
            raise RoundError("2 of 3 sites")
        if record.name == "bug":
            raise KeyError("what?")

    for name in ("quorum", "bug", "good"):
        runs.add(name)
    office = Office(runs, work)
    office.until("good", "finished")
    assert runs.again().get("quorum").why == "2 of 3 sites"
    assert "KeyError" in str(runs.again().get("bug").why)
    assert office.worker.end(5)
    assert office.done == ["good"]


def test_abort_ends_the_open_run_only(runs: Runs) -> None:
    runs.add("a")
    office = Office(runs, lambda r, leave: waits(r, leave) if r.name == "a" else None)
    office.until("a", "running")
    runs.add("b")
    runs.add("c")
    office.worker.abort("b")
    office.worker.abort("a")
    office.until("c", "finished")
    assert {r.name: r.status for r in runs.again().all()} == {"a": "aborted", "b": "aborted", "c": "finished"}
    assert office.worker.end(5)


def test_a_run_that_is_resumed_before_it_has_ended_goes_on_again(runs: Runs) -> None:
    begun: list[str] = []
    there = threading.Event()

    def work(record: RunRecord, leave: threading.Event) -> None:
        begun.append(record.name)
        there.set()
        if len(begun) == 1:
            assert leave.wait(10)
            time.sleep(0.2)  # it is still writing its state when it is resumed
            raise Stopped("left")

    runs.add("a")
    office = Office(runs, work)
    assert there.wait(10)
    office.worker.abort("a")
    runs.queue.resume("a")
    office.until("a", "finished")
    assert begun == ["a", "a"]
    assert office.worker.end(5)


def test_the_end_of_the_server_leaves_the_run_running(runs: Runs) -> None:
    runs.add("a")
    runs.add("b")
    office = Office(runs, waits)
    office.until("a", "running")
    assert office.worker.end(5)
    assert {r.name: r.status for r in runs.again().all()} == {"a": "running", "b": "queued"}


def test_a_full_disk_holds_the_queue_and_nothing_else(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a failure cannot be written: the worker lives, and goes on once there is room."""
    full = threading.Event()
    real: Any = Queue._put

    def put(self: Queue, record: RunRecord) -> RunRecord:
        if full.is_set() and record.status == "failed":
            raise StorageError("no space left")
        return real(self, record)  # type: ignore[no-any-return]

    def work(record: RunRecord, leave: threading.Event) -> None:
        full.set()
        raise StorageError("no space left")

    monkeypatch.setattr(Queue, "_put", put)
    monkeypatch.setattr("server.service.worker._AGAIN", 0.05)
    runs.add("a")
    office = Office(runs, work)
    assert full.wait(10)
    time.sleep(0.2)
    assert runs.queue.get("a").status == "running"
    assert office.worker.well()
    full.clear()
    office.until("a", "failed")
    assert office.worker.end(5)
