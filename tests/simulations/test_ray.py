"""Flower's own engine gives what the inline one gives, leaves nothing behind, and says what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray", reason='needs Ray: pip install "fedscan[ray]"')
pytestmark = pytest.mark.ray

STUDY: dict[str, Any] = {
    "name": "engines",
    "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
    "plan": {"size": [32, 32], "patch": [32, 32]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
    "training": {"steps": 2, "batch": 2, "rate": 0.01},
    "rounds": {"number": 2},
    "evaluation": {"validation": 0.2, "test": 0.3},
    "sites": {"make": "phantom", "number": 2, "cases": 6},
    "compare": ["fedavg"],
}


class Command:
    """`fedscan simulate` in a process of its own; all that it starts is known by a mark in the environment."""

    def __init__(self, folder: Path, *options: str, **rounds: Any) -> None:
        folder.mkdir(exist_ok=True)
        study = folder / "study.yaml"
        study.write_text(yaml.safe_dump(STUDY | {"rounds": STUDY["rounds"] | rounds}))
        self.out = folder / "out"
        self._mark = f"FEDSCAN_TEST={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from common.cli import main; main()", "simulate", str(study),
             "--out", str(self.out), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {name: value},
        )  # fmt: skip

    def wait(self, seconds: float = 300) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        said, complained = self.process.communicate(timeout=seconds)
        return self.process.returncode, said, complained

    def until(self, event: str) -> None:
        """Wait until the first run has told of `event`."""
        for _ in range(3000):
            files = list(self.out.glob("*/seed-1/runs/fedavg/events.jsonl"))
            if files and f'"event": "{event}"' in files[0].read_text():
                return
            assert self.process.poll() is None, self.wait()
            time.sleep(0.1)
        raise AssertionError(f"no event {event}")

    def others(self) -> list[dict[str, str]]:
        """The environments of the processes that it started and that still run."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if self._mark in environment and process.name != str(self.process.pid):
                found.append(dict(e.partition("=")[::2] for e in environment))
        return found

    def all_gone(self, seconds: float = 180) -> bool:
        """Whether within `seconds` nothing is left of it.

        Ray's agents look for their killed parent now and then only: they have been seen for 90 s after it on two busy
        cores.
        """
        end = time.monotonic() + seconds
        while self.others() and time.monotonic() < end:
            time.sleep(0.2)
        return not self.others()


def outcome(out: Path) -> dict[str, Any]:
    """Weights of all runs, and every number of the results but the times."""
    (folder,) = out.glob("engines-*")
    results = json.loads((folder / "results.json").read_text())
    return {
        "weights": {
            str(p.relative_to(folder)): p.read_bytes()
            for p in folder.glob("seed-*/runs/*/checkpoints/round-*.safetensors")
        },
        **{key: results[key] for key in ("cases", "curves", "pictures")},
    }


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = Command(tmp_path_factory.mktemp("inline"), "--seeds", "2")
    code, _, complained = command.wait()
    assert code == 0, complained
    return outcome(command.out)


def test_two_seeds_on_ray_equal_inline(tmp_path: Path, inline: dict[str, Any]) -> None:
    """Bit for bit: the same thread count in both, and updates are folded in roster order whoever answers first."""
    command = Command(tmp_path, "--engine", "ray", "--seeds", "2")
    command.until("trained")
    environments = command.others()
    code, said, complained = command.wait()
    assert code == 0, complained
    assert outcome(command.out) == inline
    assert len(inline["weights"]) >= 10
    assert environments
    # A process that gives itself a title (ray::IDLE) writes it over a part of the environment that the system shows.
    assert {e["RAY_AUTH_MODE"] for e in environments if "RAY_AUTH_MODE" in e} == {"token"}
    (token,) = {e["RAY_AUTH_TOKEN"] for e in environments if "RAY_AUTH_TOKEN" in e}
    assert len(token) == 64
    assert command.all_gone()
    assert complained == ""
    assert not [w for w in ("INFO", "WARN", "DEPRECATED", "Traceback", "ray::") if w in said]


@pytest.mark.full
def test_killed_on_ray_and_resumed(tmp_path: Path, inline: dict[str, Any]) -> None:
    killed = Command(tmp_path, "--engine", "ray", "--seeds", "2")
    killed.until("folded")
    killed.process.kill()
    killed.wait()
    assert killed.all_gone()
    resumed = Command(tmp_path, "--engine", "ray", "--seeds", "2", "--resume")
    code, _, complained = resumed.wait()
    assert code == 0, complained
    assert outcome(resumed.out) == inline


@pytest.mark.full
def test_error_of_the_rounds_ends_the_command(tmp_path: Path) -> None:
    """Nobody answers within a millisecond."""
    command = Command(tmp_path, "--engine", "ray", deadline=0.001)
    code, _, complained = command.wait()
    assert code == 1
    assert complained.startswith("error: fedavg, round 1: 0 of 2 sites sent a usable update")
    assert len(complained.splitlines()) == 1
    assert command.all_gone()


@pytest.mark.full
def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    command = Command(tmp_path, "--engine", "ray")
    command.until("trained")
    command.process.send_signal(signal.SIGINT)
    code, said, complained = command.wait()
    assert (code, complained.strip()) == (130, "stopped")
    assert "--resume" in said
    assert command.all_gone()
