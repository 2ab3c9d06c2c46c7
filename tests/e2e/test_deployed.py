"""The same study over real sites and in one process ends with the same weights, bit for bit."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.app import make_app
from client.site import SiteConfig
from common.study import Study, load_study
from common.wire import Flat
from server.checkpoint import State
from server.joining import join
from server.rounds import Run
from simulations.inline import InlineGrid
from simulations.sites import Field
from tests.e2e.deployment import Deployment, same

SITES = ("group-byte", "group-large", "group-mid")
STUDY: dict[str, Any] = {
    "name": "hippocampus",
    "data": {"channels": ["t1"], "labels": ["anterior", "posterior"]},
    "plan": {"spacing": [1, 1, 1], "patch": [24, 32, 24]},
    "net": {"name": "unet", "width": 4, "levels": 3, "norm": "batch"},
    "training": {"rate": 0.004, "batch": 2, "steps": 3},
    "strategy": {"name": "fedprox", "mu": 0.01},
    "rounds": {"number": 3},
    "evaluation": {"validation": 0.2, "test": 0.2},
}


def few_cases(data: Path, folder: Path, site: str, number: int = 7) -> Path:
    """A table of the first cases of a site."""
    root = data / "hippocampus-mr-3d"
    with (root / "cases.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["site"] == site][:number]
    table = folder / f"{site}.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: str(root / v) if k in ("image", "label") else v for k, v in row.items()})
    return table


@pytest.fixture
def federation(tmp_path: Path, fedscan_data: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "federation")
    made.init()
    for site in SITES:
        made.enrol(site, data=str(few_cases(fedscan_data, tmp_path, site)))
    yield made
    made.close()


def inline(study: Study, deployment: Deployment, folder: Path) -> tuple[State, Flat]:
    """The study simulated over the same tables."""
    configs = tuple(SiteConfig(name=s, data=deployment.folder.parent / f"{s}.csv", device="cpu") for s in SITES)
    sites = Field(configs, folder / "cache", folder / "sites").open()
    grid = InlineGrid(make_app(lambda c: sites[int(c.node_config["partition-id"])]), len(sites))
    members = join(grid, study)
    roster = [members[s] for s in SITES]
    run = Run(grid, study, folder / "run", roster, roster)
    state = run.start()
    return state, run._checkpoints.weights(state.round)


@pytest.mark.data
def test_a_deployed_study_ends_as_its_simulation_bit_for_bit(federation: Deployment, tmp_path: Path) -> None:
    study = federation.sign(STUDY)
    federation.start_server()
    for site in SITES:
        federation.start_site(site)
    federation.begin(study)
    federation.wait()
    state, weights = federation.result(study)
    simulated, expected = inline(load_study(study), federation, tmp_path / "inline")
    assert same(weights, expected)
    assert (state.best_round, state.best_metric) == (simulated.best_round, simulated.best_metric)
    tested = [e for e in federation.events() if e["event"] == "evaluated" and e["part"] == "test"]
    assert [e["site"] for e in sorted(tested, key=lambda e: e["site"])] == list(SITES)
