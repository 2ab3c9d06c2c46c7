"""A whole federation as its users start it: every step is a `fedscan` command in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from common.enrolment import request_fingerprint
from common.study import Study, load_study
from common.wire import Flat, Schema
from server.checkpoint import Checkpoints, State
from server.events import read_events
from server.identity import Coordinator

ROOT = Path(__file__).parents[2]
FEDSCAN = [sys.executable, "-c", "from common.cli import main; main()"]
PASSPHRASE = "correct horse battery"


class Deployment:
    """One coordinator and its sites on the loopback, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "server"
        self.port = _free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._passphrase = folder / "passphrase"
        self._passphrase.write_text(PASSPHRASE + "\n")
        self._passphrase.chmod(0o600)
        self.environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FEDSCAN_SERVER_HOME": str(self.home),
            "FEDSCAN_PASSPHRASE_FILE": str(self._passphrase),
        }  # fmt: skip

    def fedscan(self, *arguments: object, code: int = 0, **environment: str) -> str:
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            [*FEDSCAN, *map(str, arguments)], cwd=self.folder, env={**self.environment, **environment},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def init(self) -> None:
        self.fedscan("server", "init", "--host", "127.0.0.1", "--port", self.port)

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
        path.write_text(yaml.safe_dump({**written, "name": name, "accept": "signer", "device": "cpu", **settings}))

    def sign(self, study: Mapping[str, Any], run: str = "run-1") -> Path:
        path = self.folder / f"{run}.yaml"
        path.write_text(yaml.safe_dump(dict(study)))
        self.fedscan("study", "sign", path, "--run", run)
        return path

    # Processes

    def start(self, name: str, *arguments: object) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [*FEDSCAN, *map(str, arguments)], cwd=self.folder, env=self.environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        log.close()

    def start_server(self) -> None:
        self.start("server.process", "server", "start", "--foreground", "--listen", "127.0.0.1")
        wait_until(lambda: self.answers(), 60, lambda: self.log("server.process"))

    def answers(self) -> bool:
        """Whether the server's control does."""
        done = subprocess.run(
            [*FEDSCAN, "server", "status", "--json"], cwd=self.folder, env=self.environment, capture_output=True,
            timeout=60, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def start_trainer(self, site: str) -> None:
        self.start(f"{site}.trainer", "site", "trainer", "--home", self.site_home(site))

    def start_link(self, site: str) -> None:
        self.start(f"{site}.link", "site", "link", "--home", self.site_home(site))

    def start_site(self, site: str) -> None:
        self.start_trainer(site)
        self.start_link(site)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        process.wait(60)

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

    def wait(self, run: str = "run-1", seconds: float = 300) -> None:
        """Until the run has finished."""
        wait_until(lambda: any(e["event"] == "finished" for e in self.events(run)), seconds, self.everything)

    def everything(self) -> str:
        """The end of every log, for a failed test."""
        logs = sorted(self.folder.glob("*.log"))
        tail = "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in logs)
        return f"{tail}\n== events\n{self.events()[-10:]}"

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
