"""Pictures of the worst, the median and the best test case of each site, by the better federated model."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from client.data.cache import load_image, load_meta, load_truth
from client.data.preprocess import restore
from client.inference import segment
from server.report.verdict import choose
from simulations.arms import GIVEN, keyed
from simulations.baselines import best_model
from simulations.pictures import overlay
from simulations.simulation import Simulation

Row = dict[str, Any]


def paint(simulation: Simulation, cases: list[Row], costs: list[Row]) -> Iterator[Row]:
    """Write the pictures of one seed under `pictures/` and describe each for the report.

    It is the first seed that has test cases of the method that stands for federation; without any, nothing is drawn.
    """
    strategies = keyed(simulation.compare)
    own = next((key for key, choice in strategies.items() if choice == simulation.study.strategy), None)
    choice = choose(costs, list(strategies) or [GIVEN], own)
    mine = [c for c in cases if choice and c["method"] == choice.method and _score(c) >= 0]
    if choice is None or not mine:
        return
    method, seed = choice.method, min(c["seed"] for c in mine)
    study, folder = next((s, f) for s, f in simulation.seeded() if s.seed == seed)
    field = simulation.field(folder)
    arm = next(a for a in simulation.arms(study, field.training) if a.method == method)
    for site in field.open()[:-1]:
        rows = sorted((c for c in mine if (c["seed"], c["site"]) == (seed, site.config.name)), key=_score)
        if not rows:
            continue
        net = best_model(arm.study, folder / "runs" / arm.run, site.home).to(site.workplace.device)
        found = {c.id: c for c in site.data(study).test}
        for rank, place in _ranks(len(rows)).items():
            case, row = found[rows[place]["case"]], rows[place]
            prediction = segment([net], case, arm.study, site.workplace.device)
            meta = load_meta(case)
            image = restore(np.array(load_image(case)[:1]), meta)[0]
            path = Path("pictures") / f"{site.config.name}-{rank}.png"
            overlay(image, np.array(load_truth(case)), prediction, meta["own"]["spacing"], simulation.out / path,
                    f"{site.config.name}: {rank} case, Dice {_score(row):.3f}", study.data.labels)  # fmt: skip
            yield {"site": site.config.name, "method": method, "rank": rank, "case": row["case"],
                   "dice": _score(row), "png": str(path)}  # fmt: skip


def _ranks(cases: int) -> dict[str, int]:
    """The places, among so many cases from the worst to the best, that are shown, by what they are called."""
    if cases == 1:
        return {"only": 0}
    middle = {"median": cases // 2} if cases > 2 else {}
    return {"worst": 0, **middle, "best": cases - 1}


def _score(row: Row) -> float:
    """A case's mean Dice over its labels; -1 when it has none of them."""
    values = [d for d in row["dice"].values() if d is not None]
    return fmean(values) if values else -1.0
