"""The result of a run reaches every site that took part: those that are there at once, the others when they come."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from client.data.prepare import prepare
from client.device import pick_device
from client.evaluation import evaluate
from client.models import home_models
from client.site import site_of_home
from client.training import channels_last
from client.work.results import read_results, write_results
from common.bundle import Bundle, read_bundle
from common.wire import Schema
from server.checkpoint import Checkpoints
from server.service.delivery import read_delivery
from tests.e2e.deployment import same, wait_until
from tests.e2e.toy import STUDY, Toy

# Whoever is away for some seconds is gone without.
HASTY = {**STUDY, "rounds": {**STUDY["rounds"], "deadline": 8}}


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    made = Toy(tmp_path, study=HASTY)
    yield made
    made.deployment.close()


def came_home(toy: Toy, site: str) -> list[Bundle]:
    models, damaged = home_models(toy.deployment.site_home(site))
    assert not damaged
    return [read_bundle(m.folder) for m in models]


def delivered(toy: Toy, run: str) -> set[str]:
    found = read_delivery(toy.deployment.run_folder(run))
    return {name for name, site in found.sites.items() if site.time is not None} if found else set()


def test_present_and_absent_sites_get_the_result(toy: Toy, tmp_path: Path) -> None:
    here, away = toy.sites
    deployment = toy.deployment
    toy.start()
    run = toy.begin()
    wait_until(lambda: any(e["event"] == "folded" for e in deployment.events(run)), 120, deployment.everything)
    for part in ("link", "trainer"):
        deployment.kill(f"{away}.{part}")
    deployment.wait(run)
    wait_until(lambda: delivered(toy, run) == {here}, 60, deployment.everything)

    folder = deployment.run_folder(run)
    ours, (theirs,) = read_bundle(folder / "model"), came_home(toy, here)
    assert theirs.card.model == ours.card.model
    assert theirs.card.figures == ours.card.figures
    best = Checkpoints(folder / "checkpoints", ours.study.digest(), Schema.of(ours.study)).weights(
        ours.card.figures.round
    )
    assert same(theirs.flat(), best)
    assert came_home(toy, away) == []

    # The next run, of the one site, does not wait for the other; that one comes back in the middle of it.
    second = toy.begin(sites=[here])
    deployment.start_site(away)
    wait_until(lambda: delivered(toy, run) == {here, away}, 120, deployment.everything)
    (late,) = came_home(toy, away)
    assert late.card.model == ours.card.model
    deployment.wait(second)
    wait_until(lambda: delivered(toy, second) == {here}, 60, deployment.everything)
    assert {b.card.run for b in came_home(toy, here)} == {run, second}
    assert len(came_home(toy, away)) == 1

    # With its own running statistics the model is what the site tested: the same Dice, case by case.
    home = deployment.site_home(here)
    name = f"round-{ours.card.figures.round:05d}-test.json"
    tested = read_results(home / "trainer" / "runs" / "results" / run / name)
    data = prepare(theirs.study, site_of_home(home), cache=tmp_path / "cache", home=home / "trainer" / "runs")
    device = pick_device("cpu")
    torch.manual_seed(0)
    results = evaluate(channels_last(theirs.net()), data.test, theirs.study, device)
    assert tested
    write_results(tmp_path / "again.json", theirs.study, results)
    assert read_results(tmp_path / "again.json") == tested
