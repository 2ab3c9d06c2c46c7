"""The parts of a round: small cases by hand, and real threads."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from simulations.benchmarks.legs import timeline
from simulations.benchmarks.legs.timeline import Recorder, Stretch, processor_times, share_out


def test_moments_are_shared_and_the_rest_is_idle() -> None:
    # 0-2 a alone, 2-4 a and b, 4-5 nobody, 5-6 b twice and c.
    stretches = [
        Stretch("a", -1, 4), Stretch("b", 2, 4), Stretch("b", 5, 6), Stretch("b", 5, 7), Stretch("c", 5, 6),
        Stretch("d", 8, 9),
    ]  # fmt: skip
    parts = share_out(stretches, 0, 6)
    assert parts == pytest.approx({"a": 3, "b": 1 + 2 / 3, "c": 1 / 3, "idle": 1})


def test_nothing_done_is_idle() -> None:
    assert share_out([], 1, 3) == {"idle": 2}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path / "trace")
    yield made
    made.close()


def test_the_innermost_of_nested_doings_counts(recorder: Recorder, tmp_path: Path) -> None:
    start = time.monotonic()
    with recorder.doing("outer"):
        time.sleep(0.02)
        with recorder.doing("inner"):
            time.sleep(0.03)
        time.sleep(0.02)
    end = time.monotonic()
    made = timeline.read([tmp_path / "trace"])
    assert [s.part for s in made] == ["outer", "inner", "outer"]
    assert [a.end == b.start for a, b in pairwise(made)] == [True, True]
    parts = share_out(made, start, end)
    assert sum(parts.values()) == pytest.approx(end - start)
    assert parts["inner"] >= 0.03
    assert parts["outer"] >= 0.04


def test_functions_of_all_threads_are_noted_and_still_work(recorder: Recorder, tmp_path: Path) -> None:
    class Worker:
        def work(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        def fail(self) -> None:
            raise OSError

    recorder.wrap(Worker, "work", "work")
    recorder.wrap(Worker, "fail", "fail")
    threads = [threading.Thread(target=Worker().work, args=(0.02,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Worker().work(0.01) == 0.01
    with pytest.raises(OSError):  # noqa: PT011 - its class is all that counts
        Worker().fail()
    made = timeline.read([tmp_path / "trace"])
    assert [s.part for s in made] == ["work"] * 4 + ["fail"]
    assert all(s.end - s.start >= 0.01 for s in made[:4])


def test_processor_time_is_the_thread_s_own(recorder: Recorder, tmp_path: Path) -> None:
    start = time.monotonic()
    with recorder.doing("sleep"):
        time.sleep(0.1)
    with recorder.doing("work"):
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
    spent = processor_times(timeline.read([tmp_path / "trace"]), start, time.monotonic())
    assert spent["sleep"] < 0.05 <= spent["work"] < 0.1
