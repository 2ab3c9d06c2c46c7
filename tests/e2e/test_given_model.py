"""A finished model is judged, and trained on, at real sites; what comes of it is what the simulation says."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.app import make_app
from client.site import SiteConfig
from client.work.results import read_results
from common.bundle import read_bundle
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid
from simulations.sites import Field
from tests.e2e.deployment import study_of, wait_until
from tests.e2e.test_result_comes_home import came_home, delivered
from tests.e2e.toy import STUDY, Toy, outcome_of

TRAINING = {**STUDY, "rounds": {"number": 2}}


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    made = Toy(tmp_path, study=TRAINING)
    yield made
    made.deployment.close()


def simulated(toy: Toy, study: dict[str, Any], file: Path, folder: Path) -> dict[str, Any]:
    configs = tuple(SiteConfig(name=name, data=data, device="cpu") for name, data in toy.sites.items())
    opened = Field(configs, folder / "cache", folder / "sites").open()
    grid = InlineGrid(make_app(lambda c: opened[int(c.node_config["partition-id"])]), len(opened))
    made = study_of(study)
    members = join(grid, made)
    roster = [members[s] for s in toy.sites]
    Run(grid, made, folder / "run", roster, roster, start=file).start()
    return outcome_of(folder / "run")


def test_a_model_is_judged_and_then_trained_on(toy: Toy, tmp_path: Path) -> None:
    deployment = toy.deployment
    toy.start()
    first = toy.begin()
    toy.outcome(first)
    model = deployment.run_folder(first) / "model"
    file = model / "weights.safetensors"
    start = {"file": str(model), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    judging = {k: v for k, v in STUDY.items() if k != "training"} | {
        "name": "judged", "start": start, "rounds": {"number": 0}, "evaluation": {"validation": 0, "test": 1},
    }  # fmt: skip
    run = toy.begin(judging)
    outcome = toy.outcome(run)
    assert outcome == simulated(toy, judging, file, tmp_path / "inline-judged")
    told = [json.loads(e) for e in outcome["told"] if '"evaluated"' in e]
    # Every patient of every site: six each, of which none was for training.
    assert {e["site"]: (e["part"], e["num-examples"]) for e in told} == dict.fromkeys(toy.sites, ("test", 6))

    # The sites' books: the counts, and numbers; no weights of this study.
    for site in toy.sites:
        ledger = deployment.site_home(site) / "trainer" / "egress.jsonl"
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert any(line["run"] == first and line["arrays"] for line in lines)
        mine = [line for line in lines if line["run"] == run]
        assert [line["kind"] for line in mine if line["kind"] != "result"] == ["join", "evaluate"]
        assert not any(line["arrays"] for line in mine)
    wait_until(lambda: delivered(toy, run) == set(toy.sites), 120, deployment.everything)
    site = next(iter(toy.sites))
    models = {b.card.run: b for b in came_home(toy, site)}
    assert models[run].card.figures.rounds == 0
    given = read_bundle(model).flat()
    assert all(models[run].flat()[k].tobytes() == given[k].tobytes() for k in given)
    home = deployment.site_home(site)
    assert len(read_results(home / "trainer" / "runs" / "results" / run / "round-00000-test.json")) == 6
    deployment.fedscan("site", "report", "--home", home)
    page = (home / "site-report.html").read_text()
    assert "This model was given: the study judged it and trained nothing." in page
    assert "judges a given model" in deployment.fedscan("run", "list")
    assert "was judged and nothing was trained" in (deployment.run_folder(run) / "report.html").read_text()

    # The file is in the coordinator's home by now: the place that the study names is not looked at again.
    further = {**TRAINING, "name": "further", "start": {**start, "file": "moved-away"}}
    run = toy.begin(further)
    assert toy.outcome(run) == simulated(toy, further, file, tmp_path / "inline-further")


def test_a_start_that_is_not_there_or_does_not_fit_begins_nothing(toy: Toy) -> None:
    deployment = toy.deployment
    deployment.start_server()
    study = {**TRAINING, "start": {"sha256": "0" * 64}}
    signed = deployment.sign(study, "none")
    deployment.fedscan("run", "start", signed, code=2)
    other = deployment.folder / "other.safetensors"
    other.write_bytes(b"no weights")
    deployment.fedscan("run", "start", signed, "--weights", other, code=1)
    assert not deployment.run_folder("none").exists()
