"""A simulation that is killed at any moment and resumed ends as one that was left alone, byte for byte."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.events import read_events

KILLED = -signal.SIGKILL
DRIVER = Path(__file__).with_name("crash.py")
STUDY: dict[str, Any] = {
    "name": "crash",
    "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
    "plan": {"size": [32, 32], "patch": [32, 32]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
    "training": {"steps": 2, "batch": 2, "rate": 0.01},
    "rounds": {"number": 2},
    "evaluation": {"validation": 0.2, "test": 0.3},
    "sites": {"make": "phantom", "number": 2, "cases": 6},
    "compare": ["fedavg"],
}
# The first run is fedavg over two sites and two rounds; the call numbers below count from its start.
POINTS = {
    "while a case is prepared": ("client.data.cache:_publish", 3, "kill"),
    "during a training step": ("client.training:rate_at", 6, "kill"),
    "while a site keeps its state": ("client.work.state:save_file", 3, "torn"),
    "while a reply is spooled": ("server.spool:save_file", 2, "torn"),
    "between a spooled reply and its event": ("server.rounds:Run._trained", 3, "kill"),
    "during the fold": ("server.spool:Reply.read", 3, "kill"),
    "while the weights are written": ("server.checkpoint:save_file", 2, "torn"),
    "between the weights and state.json": ("server.checkpoint:write_whole", 4, "kill"),
    "between two rounds": ("server.spool:Spool.clear", 1, "kill"),
    "before the first checkpoint": ("server.checkpoint:write_whole", 1, "kill"),
    "during the final test": ("client.app:evaluate", 6, "kill"),
    "while per-case results are written": ("client.work.results:write_whole", 5, "kill"),
    "between the last checkpoint and its event": ("server.rounds:read_events", 1, "kill"),
    "between two runs": ("server.rounds:Run.__init__", 2, "kill"),
    "during the consensus": ("simulations.baselines:write_results", 2, "kill"),
    "before the results are written": ("simulations.run:write_whole", 1, "kill"),
    "while the report is written": ("server.report.html:render", 1, "kill"),
}
NAMED = (
    "during a training step",
    "while a reply is spooled",
    "between a spooled reply and its event",
    "during the fold",
    "between the weights and state.json",
    "between two rounds",
    "during the final test",
)


class Simulations:
    """Runs `fedscan simulate` in the warm driver, and compares what comes out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._driver = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._calm: dict[str, tuple[dict[str, Any], float]] = {}
        self._number = 0

    def close(self) -> None:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.close()
        self._driver.stdout.close()
        self._driver.wait(30)

    def fresh(self) -> Path:
        """A folder for one simulation."""
        self._number += 1
        return self.folder / str(self._number)

    def study(self, **changes: Any) -> Path:
        """A study file; sections in `changes` are added to those of STUDY."""
        content = {k: {**v, **changes.get(k, {})} if isinstance(v, dict) else changes.get(k, v)
                   for k, v in STUDY.items()}  # fmt: skip
        text = yaml.safe_dump(content)
        path = self.folder / f"{abs(hash(text))}.yaml"
        path.write_text(text)
        return path

    def run(self, study: Path, out: Path, *options: str, **trouble: Any) -> dict[str, Any]:
        """One command; `trouble` as the driver takes it."""
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        args = ["simulate", str(study), "--out", str(out), *options]
        self._driver.stdin.write(json.dumps({"args": args, **trouble}) + "\n")
        answer: dict[str, Any] = json.loads(self._driver.stdout.readline())
        return answer

    def calm(self, study: Path) -> tuple[dict[str, Any], float]:
        """What the undisturbed simulation ends with, and how long it takes."""
        if study.name not in self._calm:
            out = self.fresh()
            answer = self.run(study, out)
            assert answer["code"] == 0, answer["said"]
            self._calm[study.name] = (outcome(out), answer["seconds"])
        return self._calm[study.name]

    def resumed(self, study: Path, out: Path) -> dict[str, Any]:
        """What the simulation in `out` ends with when it is resumed and left alone."""
        answer = self.run(study, out, "--resume")
        assert answer["code"] == 0, answer["said"]
        return outcome(out)


@pytest.fixture(scope="module")
def simulations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulations]:
    made = Simulations(tmp_path_factory.mktemp("resume"))
    yield made
    made.close()


def simulation(out: Path) -> Path:
    """The one simulation in `out`."""
    (found,) = out.glob("crash-*")
    return found


def outcome(out: Path) -> dict[str, Any]:
    """Everything of a finished simulation that must not depend on how it came about: that is, all but the times."""
    folder = simulation(out)
    results = json.loads((folder / "results.json").read_text())
    assert (folder / "report.html").stat().st_size > 10_000
    return {
        "weights": {
            f"{p.parent.parent.name}/{p.name}": p.read_bytes()
            for p in folder.glob("seed-*/runs/*/checkpoints/*.safetensors")
        },
        "kept": {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("seed-*/sites/*/state/*/*")},
        "counted": {
            p.parent.name: [e["round"] for e in read_events(p) if e["event"] == "checkpoint"]
            for p in folder.glob("seed-*/runs/*/events.jsonl")
        },
        "left": sorted(str(p.relative_to(folder)) for p in folder.glob("seed-*/runs/*/spool")),
        "cases": results["cases"],
        "curves": results["curves"],
        "costs": [{k: v for k, v in cost.items() if k != "seconds"} for cost in results["costs"]],
        "pictures": results["pictures"],
    }


def killed(simulations: Simulations, study: Path, point: str) -> Path:
    """The folder of a simulation that was killed at `point`."""
    at, call, what = POINTS[point]
    out = simulations.fresh()
    answer = simulations.run(study, out, at=at, call=call, what=what)
    assert answer["code"] == KILLED, f"{point}: {answer}"
    return out


@pytest.mark.parametrize("point", NAMED)
def test_killed_at_a_named_point(simulations: Simulations, point: str) -> None:
    study = simulations.study()
    out = killed(simulations, study, point)
    assert simulations.resumed(study, out) == simulations.calm(study)[0]


@pytest.mark.full
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point_with_what_sites_keep(simulations: Simulations, point: str) -> None:
    study = simulations.study(rounds={"number": 2, "buffers": "local"}, training={"optimizer_state": "keep"})
    out = killed(simulations, study, point)
    assert simulations.resumed(study, out) == simulations.calm(study)[0]


def test_killed_at_random_and_again(simulations: Simulations) -> None:
    study = simulations.study()
    calm, seconds = simulations.calm(study)
    moments = random.Random(7)
    out = simulations.fresh()
    for share in (moments.uniform(0.2, 0.6), moments.uniform(0.1, 0.4)):
        # On a busy machine the moment may come before the simulation has begun, and there is nothing to resume.
        begun = ["--resume"] if list(out.glob("crash-*")) else []
        simulations.run(study, out, *begun, after=seconds * share)
    if not list(out.glob("crash-*")):
        assert simulations.run(study, out)["code"] == 0
    assert simulations.resumed(study, out) == calm


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("keeps", ["everything", "nothing"])
def test_killed_at_ten_random_moments(simulations: Simulations, seed: int, keeps: str) -> None:
    """Bigger: three sites of volumes, three rounds, two strategies."""
    study = simulations.study(
        data={"dimensions": 3},
        plan={"spacing": [4, 4, 4], "patch": [16, 16, 16], "size": None},
        rounds={"number": 3, "buffers": "local" if keeps == "everything" else "aggregate"},
        training={"optimizer_state": "keep" if keeps == "everything" else "reset"},
        sites={"number": 3},
        compare=["fedavg", {"name": "fedprox", "mu": 0.1}],
    )
    calm, seconds = simulations.calm(study)
    out = simulations.fresh()
    moments = random.Random(seed)
    # The first tenth goes by before there is anything to resume, and more of it on a machine that became busy.
    while not list(out.glob("crash-*")):
        simulations.run(study, out, after=seconds * moments.uniform(0.2, 1))
    assert simulations.resumed(study, out) == calm


def test_ctrl_c_says_how_to_go_on(simulations: Simulations) -> None:
    study = simulations.study()
    out = simulations.fresh()
    answer = simulations.run(study, out, at="client.training:rate_at", call=6, what="interrupt")
    assert (answer["code"], answer["said"].strip()) == (130, "stopped")
    assert simulations.resumed(study, out) == simulations.calm(study)[0]


@pytest.mark.parametrize("at", ["server.spool:save_file", "server.checkpoint:save_file", "client.data.cache:_publish"])
def test_full_disk(simulations: Simulations, at: str) -> None:
    """A file that cannot grow beyond 100 bytes, as on a full disk, from the second call on."""
    study = simulations.study()
    out = simulations.fresh()
    answer = simulations.run(study, out, at=at, call=2, what="full")
    assert answer["code"] == 1, answer
    assert answer["said"].startswith("error: ")
    assert "could not be written" in answer["said"]
    assert "Traceback" not in answer["said"]
    assert simulations.resumed(study, out) == simulations.calm(study)[0]


def test_finished_simulation_returns_at_once(simulations: Simulations) -> None:
    study = simulations.study()
    out = simulations.fresh()
    assert simulations.run(study, out)["code"] == 0
    before = {p: p.read_bytes() for p in simulation(out).rglob("*") if p.is_file()}
    answer = simulations.run(study, out, "--resume", at="server.rounds:Run.__init__", what="kill")
    assert answer["code"] == 0, answer
    assert {p: p.read_bytes() for p in before} == before


def test_changes_are_refused(simulations: Simulations) -> None:
    study = simulations.study()
    out = killed(simulations, study, "between two rounds")
    other = simulations.run(simulations.study(training={"rate": 0.02}), out, "--resume")
    assert (other["code"], other["said"][:25]) == (2, "error: nothing to resume:")
    assert "holds no simulation of this study" in other["said"]
    more = simulations.run(simulations.study(sites={"number": 3}), out, "--resume")
    assert more["code"] == 2
    assert "began with (hospital-3). Undo the change" in more["said"]
    assert simulations.resumed(study, out) == simulations.calm(study)[0]
