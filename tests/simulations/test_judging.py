"""A study without rounds: a given model is judged at every site, and nothing is trained."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from client.data.split import assign, targets
from client.data.volume import SiteData
from client.evaluation import evaluate, summary
from client.open_site import OpenSite
from client.policy import Policy
from client.training import channels_last
from client.work.results import read_results
from common import wire
from common.bundle import read_bundle, write_bundle
from common.errors import RoundError
from common.figures import Figures
from common.nets import build_net
from common.schema import Schema
from common.study import Study
from common.study_evaluation import Evaluation
from common.study_explain import facts, words
from common.wire import Task
from server.events import read_events
from server.joining import join
from server.report.run import write_run_report
from server.rounds import Run


@pytest.fixture
def model(toy: Any, toy_study: Any) -> Path:
    """A model that somebody else trained."""
    study = toy_study()
    torch.manual_seed(5)
    flat = Schema.of(study).pack(build_net(study).state_dict())
    write_bundle(toy.folder / "model", study, "elsewhere", flat, Figures(round=1, rounds=1, sites=1, cases=1))
    return toy.folder / "model" / "weights.safetensors"


def judging(file: Path, **changes: Any) -> Study:
    base: dict[str, Any] = {
        "name": "judged",
        "start": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "data": {"labels": ["disc"], "dimensions": 2},
        "plan": {"patch": [16, 16]},
        "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
        "rounds": {"number": 0},
        "evaluation": {"validation": 0.5, "test": 0.5},
    }
    return Study.model_validate(base | changes)


@pytest.fixture
def two(toy: Any) -> Any:
    toy.add("a", 0)
    toy.add("b", 100)
    return toy


def run_of(toy: Any, study: Study, file: Path | None, out: str = "out") -> tuple[Run, list[OpenSite]]:
    grid, sites = toy.grid(out)
    members = list(join(grid, study).values())
    return Run(grid, study, toy.folder / out / "run", members, members, start=file), sites


def test_each_site_judges_the_given_model(two: Any, model: Path) -> None:
    """The oracle is the model, opened from its bundle and evaluated on each site's cases by hand."""
    study = judging(model)
    run, sites = run_of(two, study, model)
    state = run.start()
    assert (state.finished, state.round, state.best_round) == (True, 0, 0)
    events = read_events(run.folder / "events.jsonl")
    kinds = [e["event"] for e in events]
    assert kinds == ["started", *["evaluated"] * 2, "checkpoint", *["evaluated"] * 2, "finished"]
    net = channels_last(read_bundle(model).net())
    for site in sites:
        for part in ("validation", "test"):
            results = evaluate(net, getattr(site.data(study), part), study, torch.device("cpu"))
            (told,) = (e for e in events if e.get("part") == part and e["site"] == site.config.name)
            assert {k: told[k] for k in summary(results, study)} == summary(results, study)
        assert read_results(site.home / "results" / "run" / "round-00000-test.json")
    # What the run hands out is that model, under this study.
    ended = read_bundle(run.folder / "model")
    given = read_bundle(model).flat()
    assert all(ended.flat()[k].tobytes() == given[k].tobytes() for k in given)
    figures = ended.card.figures
    assert (figures.round, figures.rounds, figures.sites, figures.cases, figures.curve) == (0, 0, 0, 0, ())
    assert figures.test is not None
    assert figures.test.sites == 2


def test_the_report_says_what_was_done(two: Any, model: Path) -> None:
    study = judging(model)
    run, _ = run_of(two, study, model)
    run.start()
    write_run_report(run.folder, study, "finished")
    page = (run.folder / "report.html").read_text()
    found = json.loads((run.folder / "report.json").read_text())
    dice = {s["name"]: s["test"]["dice"] for s in found["sites"]}
    low, high = sorted(dice, key=dice.__getitem__)
    assert study.start is not None
    assert found["judged"] == (
        f"The given model ({study.start.sha256[:12]}) was judged and nothing was trained. Its mean test Dice at 2 "
        f"sites is {sum(dice.values()) / 2:.3f}, from {dice[low]:.3f} at {low} to {dice[high]:.3f} at {high}."
    )
    assert "A given model, judged" in page
    assert found["judged"] in page
    for absent in ("How training went", "of 0 rounds", "the best in validation", "round 0"):
        assert absent not in page
    nbytes = Schema.of(study).nbytes
    assert [(s["bytes_down"], s["bytes_up"], s["updates"]) for s in found["sites"]] == [(2 * nbytes, 0, 0)] * 2


def test_a_run_that_was_killed_between_the_two_parts_validates_no_more(two: Any, model: Path, monkeypatch: Any) -> None:
    """After the test began no site would take an older task of the run."""
    study = judging(model)
    run, _ = run_of(two, study, model)
    monkeypatch.setattr(Run, "_final_test", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run.start()
    monkeypatch.undo()
    again, _ = run_of(two, study, None)
    again.start()
    parts = [e["part"] for e in read_events(run.folder / "events.jsonl") if e["event"] == "evaluated"]
    assert parts == ["validation"] * 2 + ["test"] * 2


def test_too_few_answers_stop_the_run(two: Any, model: Path, monkeypatch: Any) -> None:
    study = judging(model, rounds={"number": 0, "quorum": 1.0})
    run, sites = run_of(two, study, model)
    data = sites[0].data(study)
    monkeypatch.setattr(sites[0], "data", lambda study: _lost())
    with pytest.raises(RoundError, match=r"1 of 2 sites judged the model, 2 are needed \(rounds\.quorum\)"):
        run.start()
    monkeypatch.setattr(sites[0], "data", lambda study: data)
    assert run.start().finished


def test_a_site_without_test_cases_is_asked_again_for_its_validation(two: Any, model: Path, monkeypatch: Any) -> None:
    """Else a run that missed its quorum could never go on; and who said it already is not asked twice."""
    data = {name: load(None) for name, load in two.sites.items()}
    for name, has in data.items():
        two.sites[name] = lambda study, has=has: SiteData(has.train, has.validation, ())
    study = judging(model, evaluation={"validation": 1, "test": 0}, rounds={"number": 0, "quorum": 1.0})
    run, sites = run_of(two, study, model)
    monkeypatch.setattr(sites[0], "data", lambda study: _lost())
    with pytest.raises(RoundError, match=r"1 of 2 sites judged the model, 2 are needed"):
        run.start()
    again, _ = run_of(two, study, None)
    assert again.start().finished
    judged = [e["site"] for e in read_events(run.folder / "events.jsonl") if e["event"] == "evaluated"]
    assert judged == [sites[1].config.name, sites[0].config.name]


def test_a_model_is_judged_in_no_round_that_the_study_has_not(two: Any, model: Path) -> None:
    """Else a coordinator could ask for scores as often as it likes, where people agreed to one look."""
    study = judging(model)
    grid, _ = two.grid()
    flat = Schema.of(study).pack(read_bundle(model).net().state_dict())
    for number, refused in ((0, False), (1, True)):
        task = Task(run="r", round=number, kind="evaluate", part="validation")
        message = wire.instruction(grid.get_node_ids()[0], study, task, wire.record(flat), None)
        (reply,) = grid.send_and_receive([message])
        assert reply.has_error() == refused
    assert reply.error.reason == "E_WIRE"


def _lost() -> Any:
    raise OSError("the disk is gone")


def test_no_site_trains_in_such_a_study(two: Any, model: Path) -> None:
    """Whatever the coordinator asks: the study's people agreed to a look at the model."""
    study = judging(model)
    grid, sites = two.grid()
    flat = Schema.of(study).pack(read_bundle(model).net().state_dict())
    for number in (0, 1):
        task = Task(run="r", round=number, kind="train")
        message = wire.instruction(grid.get_node_ids()[0], study, task, wire.record(flat), None)
        (reply,) = grid.send_and_receive([message])
        assert reply.has_error()
        assert reply.error.reason == "E_WIRE"
    assert not list(sites[0].home.glob("state/*/*"))


def refused(file: Path, **changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        judging(file, **changes)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start": None}, "0 judges a given model: name it under start"),
        ({"strategy": {"name": "fedprox", "mu": 1.0}}, "so nothing is trained: leave this out"),
        ({"update": "half"}, "so nothing is trained: leave this out"),
        ({"training": {"steps": 7}}, "so nothing is trained: leave this out"),
        ({"rounds": {"number": 0, "buffers": "local"}}, "so nothing is trained: leave this out"),
        ({"evaluation": {"own": {}}}, "so nothing is trained: leave this out"),
        ({"evaluation": {"validation": 0, "test": 0}}, "give the share of patients to judge on"),
        ({"evaluation": {"validation": 0.6, "test": 0.6}}, "more than all patients"),
    ],
    ids=str,
)
def test_what_makes_no_sense_without_training_is_refused(model: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refused(model, **changes)


def test_a_body_alone_cannot_be_judged(model: Path) -> None:
    start = {"sha256": "0" * 64, "parts": "body"}
    assert "a model without its last layers cannot be judged" in refused(model, start=start)


def test_with_training_both_are_needed(toy_study: Any) -> None:
    with pytest.raises(ValidationError, match="no patient is left for training"):
        toy_study(evaluation={"validation": 0.1, "test": 0.9})
    written = toy_study().model_dump(mode="json")
    del written["training"]
    with pytest.raises(ValidationError, match="Field required"):
        Study.model_validate(written)


def test_all_patients_may_judge() -> None:
    everyone = Evaluation(validation=0.1, test=0.9)
    for n in range(12):
        found = targets(n, everyone)
        assert (found["train"], sum(found.values())) == (0, n)
        assert found["test"] >= found["validation"] or n < 3
    parts = assign([f"p{i}" for i in range(10)], 1, Evaluation(validation=0, test=1))
    assert set(parts.values()) == {"test"}
    assert targets(10, Evaluation(validation=0.5, test=0.4)) == {"train": 1, "validation": 5, "test": 4}


def test_people_read_that_nothing_is_trained(model: Path) -> None:
    study = judging(model)
    known = facts(study)
    nbytes = Schema.of(study).nbytes
    assert known["bytes_per_site"] == {"sent": 0, "received": 2 * nbytes}
    assert "every round" not in known["leaves"]
    told = words(study, known)
    assert "judges a given model, trains nothing; it outlines  disc" in told
    assert "no weights: numbers about the given model alone" in told
    assert "its weights are given; SHA-256 of their file" in told
    for absent in ("after training", "optimiser", "learns", "rounds", "begins with"):
        assert absent not in told, absent


def test_the_policy_of_training_does_not_bind_it(model: Path) -> None:
    Policy().check_study(judging(model), 10**12)
