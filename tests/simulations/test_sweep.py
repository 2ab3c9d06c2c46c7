"""A sweep: what its axes mean, that it chooses on validation cases alone, and that it goes on where it was stopped."""

import csv
import json
import re
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from common.cli import run
from common.documents import Document
from common.errors import StudyError
from server.events import read_events
from server.report.sweep import choose_trial, table
from simulations.axes import axis, trials
from simulations.phantom import make_phantom

STUDY: dict[str, Any] = {
    "name": "swept",
    "data": {"dimensions": 2, "labels": ["liver", "kidneys"]},
    "plan": {"size": [32, 32], "patch": [32, 32]},
    "net": {"name": "unet", "width": 4, "levels": 2, "norm": "batch"},
    "training": {"steps": 2, "batch": 2, "rate": 0.01},
    "rounds": {"number": 2},
    "evaluation": {"validation": 0.2, "test": 0.3},
    "sites": {"make": "phantom", "number": 2, "cases": 6},
}


def document(folder: Path, **changes: Any) -> Document:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return Document.read(path)


def titles(folder: Path, *texts: str, **changes: Any) -> list[str]:
    return [t.title for t in trials(document(folder, **changes), [axis(text) for text in texts])]


def test_values_are_read_as_a_study_file_is() -> None:
    assert axis("training.rate=1e-3,0.01").values == (0.001, 0.01)
    assert axis("strategy=fedavg,fedprox,fedavg").values == ("fedavg", "fedprox")
    assert axis("strategy.mu=0.001..1").values == (0.001, 0.01, 0.1, 1.0)
    assert axis("evaluation.mirror=true,false").values == (True, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("strategy", "write a key of the study and its values"),
        ("strategy.mu=", "write a key of the study and its values"),
        ("strategy.mu=0.002..1", "goes in powers of ten"),
        ("strategy.mu=1..0.1", "the smaller first"),
        ("strategy.mu=[", "is no value"),
        ("evaluation.seed=1,2", "evaluation.seed stays as it is in a sweep"),
        ("data.labels=liver", "data.labels stays as it is in a sweep"),
    ],
)
def test_what_is_no_axis(text: str, says: str) -> None:
    with pytest.raises(StudyError, match=re.escape(says)):
        axis(text)


def test_an_option_goes_to_those_that_have_it(tmp_path: Path) -> None:
    assert titles(tmp_path, "strategy.mu=0.1,1", "strategy=fedavg,fedprox") == [
        "strategy fedavg", "strategy fedprox, strategy.mu 0.1", "strategy fedprox, strategy.mu 1",
    ]  # fmt: skip
    assert titles(tmp_path, "strategy.mu=0.1,1", strategy="fedprox") == ["strategy.mu 0.1", "strategy.mu 1"]
    assert titles(tmp_path, "update=full,topk", "update.share=0.01,0.1") == [
        "update full", "update topk, update.share 0.01", "update topk, update.share 0.1",
    ]  # fmt: skip
    # The other options of what the study names stay.
    (_, second) = trials(document(tmp_path), [axis("net.width=4,8")])
    assert (second.study.net.options["width"], second.study.net.options["levels"]) == (8, 2)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["strategy.mu=1"], "none of the chosen ones has such an option"),
        (["strategy=fedavg,fedprux"], "with strategy=fedprux: "),
        (["training.rate=0.1,20"], "with training.rate=20: "),
        (["training.speed=1"], "unknown key"),
        (["training.rate=0.1", "training.rate=0.2"], "each key may stand once"),
        (["name.first=1"], "name.first stays as it is"),
        (["description.first=1"], "has no keys"),
    ],
)
def test_what_is_no_study(tmp_path: Path, texts: list[str], says: str) -> None:
    with pytest.raises(StudyError, match=re.escape(says)):
        titles(tmp_path, *texts, description="words")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("swept")
    document(folder)
    command = ["simulate", str(folder / "study.yaml"), "--out", str(folder / "out"), "--seeds", "2", "--jobs", "2",
               "--sweep", "strategy=fedavg,fedprox", "--sweep", "strategy.mu=50"]  # fmt: skip
    assert run(command) == 0
    (made,) = (folder / "out").glob("swept-sweep-*")
    return made, command


@pytest.mark.parametrize(
    ("varied", "keeps"),
    [("strategy=fedavg,fedper", "fedper"), ("rounds.buffers=aggregate,local", "rounds.buffers: local")],
)
def test_no_trial_may_keep_layers_where_a_site_is_for_the_test_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], varied: str, keeps: str
) -> None:
    a, b = (str(home) for home in make_phantom(tmp_path / "scans", sites=2, cases=4, dimensions=2))
    sites = {"a": {"data": a}, "b": {"data": b, "use": "test"}}
    document(tmp_path, sites=sites)
    out = tmp_path / "out"
    assert run(["simulate", str(tmp_path / "study.yaml"), "--out", str(out), "--sweep", varied]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"site b is for the test only, but {keeps} keeps layers of the net at each site that trains" in said
    assert not list(out.rglob("events.jsonl"))


def test_the_best_on_validation_is_chosen_and_it_alone_is_tested(swept: tuple[Path, list[str]]) -> None:
    folder, _ = swept
    results = json.loads((folder / "sweep.json").read_text())
    means = {}
    for trial in (p.parent for p in folder.glob("*/study.json")):
        best = []
        for seed in (1, 2):
            events = read_events(trial / f"seed-{seed}" / "runs" / "trial" / "events.jsonl")
            assert events[-1]["event"] == "finished"
            assert not [e for e in events if e.get("part") == "test"]
            judged = [e for e in events if e["event"] == "evaluated"]
            rounds = {e["round"] for e in judged}
            best.append(max(fmean(e["dice"] for e in judged if e["round"] == n) for n in rounds))
        means[trial.name] = fmean(best)
    assert len(means) == 2
    chosen = max(means, key=means.__getitem__)
    assert choose_trial(results) == results["test"]["method"] == chosen
    tests = [p.relative_to(folder).parts[0] for p in folder.rglob("*test*.json")]
    assert set(tests) == {chosen}
    assert {(r["seed"], r["site"]) for r in results["test"]["cases"]} == {
        (s, x["name"]) for s in (1, 2) for x in results["sites"]
    }
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["validation"]) for r in rows] == pytest.approx(sorted(means.values(), reverse=True))
    assert [r["chosen"] for r in rows] == ["True", "False"]
    page = (folder / "sweep.html").read_text(encoding="utf-8")
    assert "strategy fedprox, strategy.mu 50" in page
    assert "http" not in page.replace("http-equiv", "")


def test_it_goes_on_where_it_was_stopped(swept: tuple[Path, list[str]]) -> None:
    folder, command = swept
    before = json.loads((folder / "sweep.json").read_text())
    lost, kept = sorted(p.parent for p in folder.glob("*/study.json"))
    shutil.rmtree(lost / "seed-2")
    (folder / "sweep.json").unlink()
    untouched = (kept / "seed-2" / "runs" / "trial" / "events.jsonl").stat().st_mtime_ns
    assert run([*command, "--resume"]) == 0
    after = json.loads((folder / "sweep.json").read_text())
    assert after["cases"] == before["cases"]
    assert after["test"] == before["test"]
    assert (kept / "seed-2" / "runs" / "trial" / "events.jsonl").stat().st_mtime_ns == untouched


def test_a_trial_that_failed_is_told_and_not_chosen(swept: tuple[Path, list[str]]) -> None:
    folder, _ = swept
    results = json.loads((folder / "sweep.json").read_text())
    best = choose_trial(results)
    gone = {"seed": 2, "method": best, "trained_on": "all"}
    results["costs"] = [c for c in results["costs"] if (c["seed"], c["method"]) != (2, best)]
    results["failures"].append({**gone, "why": "the update is not finite"})
    assert choose_trial(results) not in (None, best)
    last = table(results)[-1]
    assert (last["validation"], last["failures"]) == (None, ["the update is not finite"])
    results["costs"] = []
    assert choose_trial(results) is None
