"""The figures of a simulation, counted by hand: bytes, validation values, parameters, failures, pictures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.evaluation import CaseResult
from client.site import SiteConfig
from client.work.results import write_results
from common.nets import build_net
from common.section import Choice
from common.study import Study
from server.report.html import write_report
from simulations import gallery, results
from simulations.arms import Arm, arms
from simulations.results import collect, consensus_cost, run_cost
from simulations.simulation import Simulation
from tests.simulations.conftest import make_case

BYTES = 1000
Make = Callable[..., Study]


def run_events(train: list[str], judges: list[str], best: int = 2) -> list[dict[str, Any]]:
    """Two rounds, validated after each, and a final test at three sites. `d` is the Dice of a judge in round 2."""
    found: list[dict[str, Any]] = [{"event": "started", "time": "2031-01-01"}]
    for number in (1, 2):
        found += [{"event": "trained", "round": number, "site": s, "bytes": BYTES, "steps": 5.0, "loss": 1.0}
                  for s in train]  # fmt: skip
        found += [{"event": "evaluated", "round": number, "part": "validation", "site": s, "dice": 0.1 * number + i / 7,
                   "num-examples": 2} for i, s in enumerate(judges)][::-1]  # fmt: skip
        found += [{"event": "checkpoint", "round": number, "best_round": number}]
    found += [{"event": "evaluated", "round": best or 2, "part": "test", "site": s, "dice": 0.9, "num-examples": 2}
              for s in "abc"]  # fmt: skip
    return [*found, {"event": "finished", "round": 2, "best_round": best, "seconds": 9.0}]


def arm(study: Study, method: str, trained_on: str = "all") -> Arm:
    found = arms(study, [Choice(name="fedavg")], ["a", "b", "c"])
    return next(a for a in found if (a.method, a.trained_on) == (method, trained_on))


def test_bytes_of_a_federated_run(toy_study: Make) -> None:
    cost = run_cost(arm(toy_study(), "fedavg"), run_events(["a", "b", "c"], ["a", "b", "c"]), ["a", "b", "c"])
    assert cost["bytes_up"] == 2 * 3 * BYTES
    assert cost["bytes_down"] == (2 * 3 + 2 * 3 + 3) * BYTES  # to train, to validate, to test
    assert cost["updates"] == 30
    # In roster order, whatever the order of the answers.
    assert cost["validation"] == ((0.2 + 0 / 7) + (0.2 + 1 / 7) + (0.2 + 2 / 7)) / 3


@pytest.mark.parametrize(("method", "owner", "judges"), [("local", "b", ["b"]), ("pooled_t", "all", ["a", "b", "c"])])
def test_what_stays_in_one_place_sends_nothing(toy_study: Make, method: str, owner: str, judges: list[str]) -> None:
    events = run_events(["b" if method == "local" else "pooled"], judges)
    cost = run_cost(arm(toy_study(), method, owner), events, ["a", "b", "c"])
    assert (cost["bytes_up"], cost["bytes_down"], cost["updates"], cost["seconds"]) == (0, 0, 10, 9.0)
    assert cost["validation"] == pytest.approx(0.2 + (len(judges) - 1) / 14)


def test_without_validation_there_is_no_best_round(toy_study: Make) -> None:
    cost = run_cost(arm(toy_study(), "fedavg"), run_events(["a"], [], best=0), ["a"])
    assert (cost["best_round"], cost["validation"]) == (None, None)


def test_the_consensus_exchanges_every_local_model_once() -> None:
    local = [{"seconds": 2.0, "updates": 10}] * 4
    cost = consensus_cost(local, BYTES)
    assert (cost["bytes_up"], cost["bytes_down"]) == (4 * BYTES, 12 * BYTES)
    assert (cost["seconds"], cost["updates"]) == (8.0, 40)


class Ran:
    """A simulation of three sites and one strategy whose files are made up."""

    def __init__(self, folder: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        sites = tuple(SiteConfig(name=n, data=Path()) for n in "abc")
        self.simulation = Simulation(study, sites, (study.strategy,), folder, folder / "cache")
        (self.seed,) = [f for _, f in self.simulation.seeded()]
        rows = [{"name": n, "use": "train", "train": 4, "validation": 0, "test": 1, "patients": 5, "findings": []}
                for n in "abc"]  # fmt: skip
        monkeypatch.setattr(results, "_sites", lambda _: rows)  # there are no scans behind this simulation
        monkeypatch.setattr(results, "paint", lambda *_: iter(()))
        for a in arms(study, self.simulation.compare, "abc"):
            self.write(a.run, run_events(list(a.train), [], best=0))
            for site in "abc":
                self.test(site, a.run, "round-00002-test")
        for site in "abc":
            self.test(site, "consensus", "round-00000-test")

    def write(self, run: str, events: list[dict[str, Any]]) -> None:
        path = self.seed / "runs" / run / "events.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(e) + "\n" for e in events))

    def path(self, site: str, run: str, name: str) -> Path:
        return self.seed / "sites" / site / "results" / run / f"{name}.json"

    def test(self, site: str, run: str, name: str) -> None:
        path = self.path(site, run, name)
        path.parent.mkdir(parents=True)
        write_results(path, self.simulation.study, [CaseResult("c", "p", {"dice": (0.5,)})])


@pytest.fixture
def ran(tmp_path: Path, toy_study: Make, monkeypatch: pytest.MonkeyPatch) -> Ran:
    return Ran(tmp_path, toy_study(), monkeypatch)


def test_a_whole_simulation_has_no_failures(ran: Ran) -> None:
    found = collect(ran.simulation)
    assert found["failures"] == []
    assert len(found["cases"]) == 3 * (1 + 3 + 2 + 1)  # sites x (fedavg, three local, two pooled, consensus)
    assert [c["method"] for c in found["costs"]] == ["fedavg", *["local"] * 3, "pooled_t", "pooled_kt", "consensus"]
    assert found["study"]["method"] == "fedavg"
    learnt = sum(p.numel() for p in build_net(ran.simulation.study).parameters())
    assert found["study"]["net"]["parameters"] == learnt


def test_a_run_that_stopped_is_a_failure_and_the_report_says_so(ran: Ran) -> None:
    events = [e for e in run_events(["b"], []) if e.get("round") != 2 and e["event"] != "finished"]
    events += [{"event": "failed", "round": 2, "site": "b", "why": "the update is not finite"},
               {"event": "stopped", "round": 2, "replies": 0, "needed": 1}]  # fmt: skip
    ran.write("local-b", events)
    found = collect(ran.simulation)
    assert found["failures"] == [
        {"seed": 1, "method": "local", "trained_on": "b", "why": "the update is not finite"},
        {"seed": 1, "method": "consensus", "trained_on": "all", "why": "it lacks the local model of b"},
    ]
    assert not [c for c in found["cases"] if c["trained_on"] == "b"]
    assert sum(c["method"] == "local" for c in found["costs"]) == 2
    (ran.simulation.out / "results.json").write_text(json.dumps(found | {"seconds": 1.0}))
    page = write_report(ran.simulation.out).read_text(encoding="utf-8")
    assert "Local only at site b failed: the update is not finite." in page
    assert "Consensus of local models is incomplete: it lacks the local model of b." in page


def test_a_site_that_did_not_answer_the_final_test_is_a_failure(ran: Ran) -> None:
    ran.path("c", "fedavg", "round-00002-test").unlink()
    events = run_events(["a", "b", "c"], [], best=0)
    late = {"event": "failed", "round": 2, "site": "c", "why": "no answer before the deadline"}
    ran.write("fedavg", [*events[:-1], late, events[-1]])
    assert collect(ran.simulation)["failures"] == [
        {"seed": 1, "method": "fedavg", "trained_on": "all", "site": "c", "why": "no answer before the deadline"}
    ]


@pytest.mark.parametrize(("number", "ranks"), [(1, ["only"]), (2, ["worst", "best"]), (3, ["worst", "median", "best"])])
def test_pictures_are_called_by_their_place_among_the_cases(
    tmp_path: Path, toy: Any, toy_study: Make, monkeypatch: pytest.MonkeyPatch, number: int, ranks: list[str]
) -> None:
    tests = tuple(make_case(tmp_path / "tests", f"t{i}", i) for i in range(number))
    toy.add("a", 0)
    data = replace(toy.sites["a"](toy_study()), test=tests)
    toy.sites["a"] = lambda study: data
    study = toy_study(rounds={"number": 1})
    simulation = Simulation(study, (), (study.strategy,), tmp_path, tmp_path / "cache")
    _, sites = toy.grid()
    monkeypatch.setattr("simulations.sites.Field.open", lambda *_: [*sites, None])
    monkeypatch.setattr(Simulation, "arms", lambda *_: [Arm("fedavg", study, ("a",))])
    runs = simulation.seeded()[0][1] / "runs"
    runs.mkdir(parents=True)
    toy.run(study).folder.rename(runs / "fedavg")
    # The later a case, the worse it is.
    cases = [{"seed": 1, "method": "fedavg", "trained_on": "all", "site": "a", "case": c.id, "dice": {"disc": 0.9 - d}}
             for c, d in zip(tests, (0.0, 0.1, 0.4), strict=False)]  # fmt: skip
    found = list(gallery.paint(simulation, cases, [{"method": "fedavg", "validation": None}]))
    assert [p["rank"] for p in found] == ranks
    assert [p["case"] for p in found] == [f"t{i}" for i in reversed(range(number))]
    assert all((tmp_path / p["png"]).exists() for p in found)


@pytest.mark.parametrize("own", ["fedavg", "fedprox"])
def test_without_validation_the_pictures_are_of_the_studys_own_strategy(
    tmp_path: Path, toy: Any, toy_study: Make, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    toy.add("a", 0)
    study = toy_study(strategy=own, rounds={"number": 1})
    compare = (Choice(name="fedavg"), Choice(name="fedprox", options={"mu": 0.01}))
    simulation = Simulation(study, (), tuple(c if c.name != own else study.strategy for c in compare), tmp_path,
                            tmp_path / "cache")  # fmt: skip
    _, sites = toy.grid()
    monkeypatch.setattr("simulations.sites.Field.open", lambda *_: [*sites, None])
    ids = [c.id for c in sites[0].data(study).test]
    folder = simulation.seeded()[0][1]
    toy.run(study)
    (folder / "runs").mkdir(parents=True)
    (toy.folder / "out" / "run").rename(folder / "runs" / own)
    cases = [{"seed": 1, "method": m, "trained_on": "all", "site": "a", "case": ids[0], "dice": {"disc": 0.5}}
             for m in ("fedavg", "fedprox")]  # fmt: skip
    costs = [{"method": m, "validation": None} for m in ("fedavg", "fedprox")]
    monkeypatch.setattr(Simulation, "arms", lambda *_: [Arm(own, study, ("a",))])
    (picture,) = gallery.paint(simulation, cases, costs)
    assert (picture["method"], picture["site"], picture["case"]) == (own, "a", ids[0])
    assert np.frombuffer((tmp_path / picture["png"]).read_bytes()[:4], np.uint8).tolist() == [0x89, *b"PNG"]
    assert list(gallery.paint(simulation, [], costs)) == []
