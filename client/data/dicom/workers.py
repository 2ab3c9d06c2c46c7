"""Child processes that parse DICOM files for us, kept warm, replaced when a file kills them."""

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from client.data.dicom import limits
from client.data.dicom.problems import REASONS, Unreadable

__all__ = ["REASONS", "Unreadable", "Workers", "shared_workers"]

# Seconds that a child may take to load its libraries, on a machine that does much else.
_START = 120.0
# What a child runs.
MODULE: tuple[str, ...] = ("-m", "client.data.dicom.worker")
_ROOT = Path(__file__).resolve().parents[3]
# A child sees nothing else of our environment: no proxies, no passwords, no settings of libraries.
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Workers:
    """A pool of child processes; as many requests as children run at once, from any threads.

    A child starts with the first request that finds no idle one.

    Args:
        number: Of children; by default one per processor, at most four.
    """

    def __init__(self, number: int | None = None) -> None:
        self.number = number or max(1, min(4, os.cpu_count() or 1))
        self._places: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(self.number):
            self._places.put(None)

    def ask(self, task: str, *, seconds: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """The answer of a child to one request.

        Args:
            task: A name of `worker.TASKS`.
            seconds: Until the child is killed, from when it begins.
            arguments: Of the task: JSON values only.

        Raises:
            Unreadable: The task refuses the file, or the file has cost the child its life.
        """
        request = {"task": task, "seconds": seconds, "arguments": arguments}
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        child = self._places.get()
        try:
            if child is None or not child.alive:
                child = _replace(child)
            answer = child.ask(line, seconds)
        except BaseException:
            if child:
                child.kill()
            child = None
            raise
        finally:
            self._places.put(child)
        if "refused" in answer:
            raise Unreadable(str(answer["refused"]), str(answer["what"]))
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End the idle children; those at work end with this process. A pool that is asked again starts new ones."""
        idle: list[_Child | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._places.get_nowait())
        for child in idle:
            if child:
                child.kill()
            self._places.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


def _replace(child: "_Child | None") -> "_Child":
    if child:
        child.kill()
    return _Child()


class _Child:
    """One child process and the two pipes to it."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-s", "-W", "ignore", *MODULE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=0,
        )  # fmt: skip
        try:
            self._read(_START)
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, line: bytes, seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except (BrokenPipeError, OSError):
            raise Unreadable("crashed") from None
        return self._read(seconds)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _read(self, seconds: float) -> dict[str, Any]:
        """One line, within `seconds`."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        end = time.monotonic() + seconds
        stream = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(stream, select.POLLIN | select.POLLHUP)
        parts: list[bytes] = []
        size = 0
        while not (parts and parts[-1].endswith(b"\n")):
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise Unreadable("too-slow", f"more than {seconds:g} s")
            part = os.read(stream, 2**20)
            size += len(part)
            if not part:
                raise self._why()
            if size > limits.REPLY:
                raise Unreadable("too-large")
            parts.append(part)
        answer: dict[str, Any] = json.loads(b"".join(parts))
        return answer

    def _why(self) -> Unreadable:
        """Which of the limits has ended the child."""
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return Unreadable("too-slow", "processor time")
        return Unreadable("crashed", f"status {status}")


_lock = threading.Lock()
_shared: Workers | None = None


def shared_workers() -> Workers:
    """The pool of this process; its children end with it."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Workers()
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    global _shared, _lock
    _lock = threading.Lock()
    _shared = None


# A forked process must not talk through its parent's pipes.
os.register_at_fork(after_in_child=_forget)
