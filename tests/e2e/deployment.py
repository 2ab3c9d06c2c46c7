"""A whole federation as its users start it: every step is a `fedscan` command in a process of its own.

The processes are forked from one that has imported everything (tests/e2e/crash.py), because loading PyTorch anew for
each command would take most of a test's time.
"""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.enrolment import request_fingerprint
from common.errors import FedscanError
from common.study import Study, load_study
from common.wire import Flat, Schema
from server.checkpoint import Checkpoints, State
from server.enrolment.identity import Coordinator
from server.events import read_events
from server.service.control import ControlClient
from server.service.queue import read_run
from tests.e2e.crash import Trouble

ROOT = Path(__file__).parents[2]
FEDSCAN = [sys.executable, "-c", "from common.cli import main; main()"]
PASSPHRASE = "correct horse battery"
SERVER = "server.process"
# The tests' sites have a handful of cases and learn for a few steps.
OPEN = {"steps": 1, "batch": 1, "cases": 1, "small": 1, "digits": None}


class Warm:
    """The process from which the others are forked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, bufsize=1,
        )  # fmt: skip

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dict(order)) + "\n")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def ended(self, *pids: int) -> list[int | None]:
        """The exit code of each process; none while it runs."""
        codes: list[int | None] = self.ask({"pids": pids})["codes"]
        return codes

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@functools.cache
def warm() -> Warm:
    """One for all tests of this process."""
    made = Warm()
    atexit.register(made.close)
    return made


@dataclass(frozen=True)
class Running:
    """A process that was started."""

    pid: int
    arguments: tuple[str, ...]


class Deployment:
    """One coordinator and its sites on the loopback, each with a folder of its own.

    Args:
        folder: Gets everything.
        port: The coordinator's; a free one if none.
        way: The port by which sites reach it, where something lies between.
    """

    def __init__(self, folder: Path, port: int | None = None, way: int | None = None) -> None:
        self.folder = folder
        self.home = folder / "server"
        self.port = port or free_port()
        self.way = way or self.port
        self.processes: dict[str, Running] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._commands = 0
        self._passphrase = folder / "passphrase"
        self._passphrase.write_text(PASSPHRASE + "\n")
        self._passphrase.chmod(0o600)
        self.environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FEDSCAN_SERVER_HOME": str(self.home),
            "FEDSCAN_PASSPHRASE_FILE": str(self._passphrase),
        }  # fmt: skip

    def fedscan(self, *arguments: object, code: int = 0) -> str:
        """Run a command to its end; what it printed."""
        self._commands += 1
        said, wrong = (self.folder / f"command-{self._commands}.{end}" for end in ("out", "err"))
        pid = self._fork(f"command-{self._commands}", arguments, said, wrong)
        found = self._end_of(pid, 300)
        printed, error = (p.read_text() if p.exists() else "" for p in (said, wrong))
        assert found == code, f"{arguments}: {found}\n{printed}\n{error}"
        return printed

    def _fork(self, name: str, arguments: Sequence[object], out: Path, err: Path, trouble: str = "") -> int:
        pid: int = warm().ask({
            "args": [*map(str, arguments)], "name": name, "folder": str(self.folder), "out": str(out), "err": str(err),
            "environment": self.environment, "trouble": trouble,
        })["pid"]  # fmt: skip
        return pid

    def _end_of(self, pid: int, seconds: float) -> int:
        end = time.monotonic() + seconds
        while (code := warm().ended(pid)[0]) is None:
            assert time.monotonic() < end, f"process {pid} does not end\n{self.everything()}"
            time.sleep(0.02)
        return code

    def init(self) -> None:
        self.fedscan("server", "init", "--host", "127.0.0.1", "--port", self.way)

    def site_home(self, name: str) -> Path:
        return self.folder / name

    def enrol(self, name: str, **settings: Any) -> None:
        """A new site, from `site init` to `site join`; the fingerprints are compared as by telephone."""
        home = self.site_home(name)
        home.mkdir()
        self.fedscan("site", "init", "--name", name, "--home", home)
        request = next(home.glob("*-request.json"))
        theirs = request_fingerprint(request.read_bytes())
        self.fedscan("server", "site", "add", request, "--name", name, "--yes", theirs, "--out", home / f"{name}.join")
        ours = Coordinator(self.home).fingerprint()
        self.fedscan("site", "join", home / f"{name}.join", "--home", home, "--yes", ours)
        path = home / "site.yaml"
        written = yaml.safe_load(path.read_text()) or {}
        usual = {"name": name, "approval": {"rule": "signer"}, "device": "cpu", "policy": OPEN}
        path.write_text(yaml.safe_dump({**written, **usual, **settings}))

    def sign(self, study: Mapping[str, Any], run: str = "run-1") -> Path:
        path = self.folder / f"{run}.yaml"
        path.write_text(yaml.safe_dump(dict(study)))
        self.fedscan("study", "sign", path, "--run", run)
        return path

    # Processes

    def start(self, name: str, *arguments: object, trouble: str = "") -> None:
        log = self.folder / f"{name}.log"
        self.processes[name] = Running(self._fork(name, arguments, log, log, trouble), tuple(map(str, arguments)))

    def start_server(self, trouble: str = "") -> None:
        self.start(
            SERVER, "server", "start", "--foreground", "--listen", "127.0.0.1", "--port", self.port, trouble=trouble
        )
        wait_until(self.answers, 60, lambda: self.log(SERVER))

    def answers(self) -> bool:
        """Whether the server's control does."""
        with suppress(FedscanError), ControlClient(self.home) as client:
            return client.status().pid == self.processes[SERVER].pid
        return False

    def start_trainer(self, site: str) -> None:
        self.start(f"{site}.trainer", "site", "trainer", "--home", self.site_home(site))

    def start_link(self, site: str) -> None:
        self.start(f"{site}.link", "site", "link", "--home", self.site_home(site))

    def start_site(self, site: str) -> None:
        self.start_trainer(site)
        self.start_link(site)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """End a process; its exit code, negative for a signal."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        return self._end_of(process.pid, 60)

    def alive(self) -> bool:
        """Whether every process that was started still runs; an assertion names the one that does not."""
        codes = warm().ended(*(process.pid for process in self.processes.values()))
        for name, code in zip(self.processes, codes, strict=True):
            assert code is None, f"{name} ended with {code}\n{self.everything()}"
        return True

    # Trouble

    def arm(self, name: str, trouble: Trouble) -> None:
        """Let `trouble` happen to a running process from now on."""
        me = self.folder / name
        for left in (".armed", ".reached", ".go"):
            me.with_name(f"{name}{left}").unlink(missing_ok=True)
        me.with_name(f"{name}.trouble").write_text(trouble.text())
        os.kill(self.processes[name].pid, signal.SIGUSR1)
        wait_until(me.with_name(f"{name}.armed").exists, 60, self.everything)

    def held(self, name: str) -> None:
        """Wait until a process is where it was armed to wait."""
        wait_until((self.folder / f"{name}.reached").exists, 120, self.everything)

    def release(self, name: str) -> None:
        """Let it go on."""
        (self.folder / f"{name}.go").touch()

    def revive(self, name: str, seconds: float = 120) -> None:
        """Wait until a process was killed by what it was armed with, and start it again as systemd would."""
        process = self.processes[name]
        assert self._end_of(process.pid, seconds) == -signal.SIGKILL, self.everything()
        self.start(name, *process.arguments)

    def again(self, name: str) -> None:
        """Kill a process wherever it is, and start it again."""
        arguments = self.processes[name].arguments
        assert self.kill(name) == -signal.SIGKILL, self.everything()
        self.start(name, *arguments)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    # The run

    def begin(self, study: Path, sites: Sequence[str] = ()) -> None:
        self.fedscan("run", "start", study, *(("--sites", ",".join(sites)) if sites else ()))

    def run_folder(self, run: str = "run-1") -> Path:
        return self.home / "runs" / run

    def events(self, run: str = "run-1") -> list[dict[str, Any]]:
        return read_events(self.run_folder(run) / "events.jsonl")

    def finished(self, run: str = "run-1") -> bool:
        """Whether the run has; an assertion says why it never will."""
        record = read_run(self.run_folder(run) / "run.json")
        assert record.status not in ("failed", "aborted"), f"{record.why}\n{self.everything()}"
        return record.status == "finished"

    def wait(self, run: str = "run-1", seconds: float = 300) -> None:
        """Until the run has finished."""
        wait_until(lambda: self.alive() and self.finished(run), seconds, self.everything)

    def everything(self) -> str:
        """The end of every log, for a failed test."""
        logs = sorted(self.folder.glob("*.log"))
        tail = "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in logs)
        runs = sorted(self.home.glob("runs/*/events.jsonl"), key=lambda p: p.stat().st_mtime)
        return f"{tail}\n== events\n{read_events(runs[-1])[-10:] if runs else []}"

    def result(self, study: Path, run: str = "run-1") -> tuple[State, Flat]:
        """The last state and the weights of the last round."""
        loaded = load_study(study)
        checkpoints = Checkpoints(self.run_folder(run) / "checkpoints", loaded.digest(), Schema.of(loaded))
        state = checkpoints.state()
        assert state is not None
        return state, checkpoints.weights(state.round)


def wait_until(done: Callable[[], bool], seconds: float, why: Callable[[], str] = str) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, why()
        time.sleep(0.1)


def same(a: Flat, b: Flat) -> bool:
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def study_of(data: Mapping[str, Any]) -> Study:
    return Study.model_validate(dict(data))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
