"""A file costs at most its child: crash, hang, memory, disk, and what a child may see and say."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.data.dicom import worker
from client.data.dicom.problems import Unreadable
from client.data.dicom.workers import Workers

# A child knows the tasks of `worker` only; here it is started by a module that adds ours.
_CHILD = """
import sys
sys.path.insert(0, {folder!r})
from client.data.dicom import worker
for name in ("crash", "hang", "spin", "eat", "fill", "recurse", "speak", "environment", "not_a_number"):
    worker.TASKS[name] = "crashing:" + name
worker.main()
"""


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    code = _CHILD.format(folder=str(Path(__file__).parent))
    monkeypatch.setattr("client.data.dicom.workers.MODULE", ("-c", code))
    with Workers(1) as pool:
        yield pool


@pytest.mark.parametrize(
    ("task", "reason"),
    [("crash", "crashed"), ("hang", "too-slow"), ("spin", "too-slow"), ("eat", "too-large"), ("recurse", "damaged"),
     ("speak", "damaged"), ("not_a_number", "crashed")],
)  # fmt: skip
def test_a_bad_task_is_refused_and_the_next_is_served(workers: Workers, task: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(Unreadable) as caught:
        workers.ask(task, seconds=2.0)
    assert caught.value.reason == reason
    assert "Canary" not in str(caught.value)
    assert caught.value.code == "E_DATA"
    assert workers.ask("headers", paths=[]) == {"headers": []}
    assert time.monotonic() - start < 30


def test_no_file_larger_than_a_volume(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        workers.ask("fill", into=str(tmp_path / "big"))
    assert (tmp_path / "big").stat().st_size < 2**34


def test_the_environment_stays_outside(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:1")
    names = set(workers.ask("environment")["names"])
    assert "HTTPS_PROXY" not in names
    assert names <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS",
                     "OPENBLAS_NUM_THREADS", "GDCM_RESOURCES_PATH"}  # fmt: skip


def test_many_threads_share_few_children() -> None:
    results: list[object] = []
    with Workers(2) as pool:
        threads = [
            threading.Thread(target=lambda: results.append(pool.ask("headers", paths=["/no/such/file"])))
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 16
    assert all(r == {"headers": [{"reason": "missing", "what": "No such file or directory"}]} for r in results)


def test_every_task_exists() -> None:
    for name in worker.TASKS:
        assert callable(worker._function(name))
