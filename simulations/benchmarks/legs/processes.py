"""Processes of a benchmark: started with a mark, their output in files, every one of them ended at the end."""

import common.quiet  # noqa: F401

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from simulations.benchmarks.legs.measured import processor_seconds

_MARK = "FEDSCAN_BENCHMARK"
ROOT = Path(__file__).parents[3]


class BenchmarkError(RuntimeError):
    """A leg of the benchmark did not come to its end."""


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Processes:
    """Processes that end with this context, and so do theirs, whatever session they moved to.

    Args:
        folder: Where their output goes and where they run.
        environment: Variables beside those of this process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._token = secrets.token_hex(16)
        self._environment = {**os.environ, **(environment or {}), _MARK: self._token}
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for process in self._started.values():
            process.terminate()
        self._end(signal.SIGTERM, 10)
        self._end(signal.SIGKILL, 5)
        for process in self._started.values():
            process.wait()

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start `command`; its output goes to NAME.log."""
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started[name] = process
        return process

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run `command` to its end; raises BenchmarkError when it fails."""
        if self.start(name, command).wait() != 0:
            raise BenchmarkError(f"{name} failed:\n{self._tail(name)}")
        del self._started[name]

    def wait(self, what: str, there: Callable[[], bool], seconds: float) -> None:
        """Wait until `there`; raises BenchmarkError after `seconds`, or once a process has ended by itself."""
        end = time.monotonic() + seconds
        while not there():
            for name, process in self._started.items():
                if process.poll() is not None:
                    raise BenchmarkError(f"{name} ended ({process.returncode}):\n{self._tail(name)}")
            if time.monotonic() > end:
                tails = "\n".join(f"{name}:\n{self._tail(name)}" for name in self._started)
                raise BenchmarkError(f"no {what} after {seconds:g} s\n{tails}")
            time.sleep(0.1)

    def says(self, name: str, text: str) -> bool:
        """Whether a process has written `text`."""
        return text in self._log(name).read_text(encoding="utf-8", errors="replace")

    def cpu(self) -> float:
        """Processor seconds of all of them so far."""
        return processor_seconds(self.ids())

    def cpu_each(self) -> dict[str, float]:
        """Processor seconds so far of each that was started here, by name."""
        return {name: processor_seconds([process.pid]) for name, process in self._started.items()}

    def ids(self) -> list[int]:
        """All processes that carry the mark: those started here, and those that they started."""
        mark = f"{_MARK}={self._token}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def _end(self, how: signal.Signals, seconds: float) -> None:
        end = time.monotonic() + seconds
        for pid in self.ids():
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        while self.ids() and time.monotonic() < end:
            for process in self._started.values():
                process.poll()
            time.sleep(0.1)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(encoding="utf-8", errors="replace")[-3000:]
