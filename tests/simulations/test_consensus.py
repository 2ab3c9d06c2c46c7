"""The consensus of the local models, held against predictions averaged by hand from the models' own files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from client.evaluation import evaluate
from client.work.results import read_results, write_results
from simulations.arms import arms
from simulations.baselines import best_model, consensus, consensus_results
from simulations.sites import Field


def test_a_local_model_that_is_there_after_all_is_averaged_too(
    toy: Any, toy_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"number": 1})
    _, sites = toy.grid()
    monkeypatch.setattr(Field, "open", lambda *_: [*sites, None])
    field = Field((), toy.folder / "cache", toy.folder / "out" / "sites")
    local = [arm for arm in arms(study, [study.strategy], ["a", "b"]) if arm.method == "local"]
    judged: list[str] = []

    def trained(site: str) -> None:
        arm = next(arm for arm in local if arm.train == (site,))
        (toy.folder / "runs").mkdir(exist_ok=True)
        toy.run(arm.study, f"of-{site}", [site]).folder.rename(toy.folder / "runs" / arm.run)

    def made() -> dict[str, Any]:
        judged.clear()
        consensus(study, field, local, toy.folder, lambda site, done, total: judged.append(site))
        return {site.config.name: read_results(consensus_results(site.home)) for site in sites}

    def by_hand(site: Any, runs: list[str]) -> Any:
        nets = [best_model(local[0].study, toy.folder / "runs" / run) for run in runs]
        path = Path(toy.folder) / "by-hand.json"
        write_results(path, study, evaluate(nets, site.data(study).test, study, torch.device("cpu")))
        return json.loads(path.read_text())

    trained("a")
    alone = made()
    assert alone == {site.config.name: by_hand(site, ["local-a"]) for site in sites}
    assert made() == alone
    assert not judged, "the same models give the same results"
    trained("b")
    both = made()
    assert both == {site.config.name: by_hand(site, ["local-a", "local-b"]) for site in sites}
    assert both != alone
    assert judged == ["a", "b"]
