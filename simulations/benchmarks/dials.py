"""Which strategy holds when a dial is turned: `python -m simulations.benchmarks.dials`.

Five phantom hospitals of 2D pictures, a small U-Net with batch normalisation, and one thing wrong at a time: unlike
grey values, a rare organ, wrong labels at one hospital, a hospital that stays away, one that poisons its updates
(`faults.py`). The hospital at fault is always the last, and every figure, with and without a fault, is of the
four others: mean and worst test Dice with the weights of the last round.

Each pair of strategy and turn is a cell, whose result is kept in OUT/cells; a second call goes on with what is missing.
OUT/dials.json holds all of them, `dials_page.py` draws and tabulates them.
"""

import common.quiet  # noqa: F401

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flwr.app import Context

from client.app import make_app
from client.open_site import OpenSite
from client.site import SiteConfig
from common.disk import write_whole
from common.errors import RoundError
from common.study import Study
from server.events import Event, read_events
from server.joining import join
from server.rounds import Run
from simulations.anatomy import ORGANS
from simulations.benchmarks.dials_page import write_page
from simulations.benchmarks.faults import HONEST, Fault, FaultyGrid
from simulations.dials import STILL, Dials
from simulations.phantom import make_phantom
from simulations.sites import Field

RESULTS = "dials.json"
DIFFERENCE = 0.3
STRATEGIES = ("fedavg", "fedprox", "fedavgm", "scaffold", "fedbn", "feddg_ga",
              "median", "trimmed_mean", "multi_krum", "geometric_median", "norm_clipping")  # fmt: skip


class Size(NamedTuple):
    """How much there is to do in each cell: sites, cases of each, rounds, steps of each site in a round."""

    sites: int = 5
    cases: int = 16
    rounds: int = 6
    steps: int = 5


USUAL = Size()


class Turn(NamedTuple):
    """One dial at one strength: a column.

    Attributes:
        dial: Which.
        strength: In words, as the column's head says it.
        dials: Of the phantoms.
        fault: Of the last site.
    """

    dial: str
    strength: str
    dials: Dials = STILL
    fault: Fault = HONEST

    @property
    def key(self) -> str:
        """Names it in files."""
        return f"{self.dial}-{self.strength}".replace(" ", "_").replace("×", "x").replace("−", "minus")


TURNS = (
    Turn("no dial", "–"),
    Turn("contrast", "0.7", Dials(contrast=0.7)),
    Turn("contrast", "1.4", Dials(contrast=1.4)),
    Turn("rarity", "0.5", Dials(rarity=0.5)),
    Turn("rarity", "1", Dials(rarity=1)),
    Turn("wrong labels", "0.5", Dials(wrong_labels=0.5)),
    Turn("wrong labels", "1", Dials(wrong_labels=1)),
    Turn("away", "half", fault=Fault(away=0.5)),
    Turn("away", "always", fault=Fault(away=1)),
    Turn("poison", "× −1", fault=Fault(factor=-1)),
    Turn("poison", "× −10", fault=Fault(factor=-10)),
    Turn("poison", "× 10", fault=Fault(factor=10)),
    Turn("poison", "× 100", fault=Fault(factor=100)),
    Turn("poison", "NaN", fault=Fault(factor=math.nan)),
)


class Cell(NamedTuple):
    """One strategy under one turn with one seed."""

    strategy: str
    turn: Turn
    seed: int

    @property
    def key(self) -> str:
        """Names its files."""
        return f"{self.strategy}-{self.turn.key}-{self.seed}"


def study(cell: Cell, size: Size) -> Study:
    """The study of a cell; the same for all strategies."""
    return Study.model_validate(
        {
            "name": "dials",
            "seed": cell.seed,
            "data": {"labels": ORGANS, "dimensions": 2},
            "plan": {"patch": [48, 48]},
            "net": {"name": "unet", "width": 8, "levels": 2, "norm": "batch"},
            # No more than is needed to tell strategies apart: 154 cells are to take minutes.
            "training": {
                "steps": size.steps,
                "rate": 0.015,
                "batch": 4,
                "precision": "fp32",
                "augment": "none",
                "clip": None,
            },
            "rounds": {"number": size.rounds},
            "strategy": {"name": cell.strategy},
            "evaluation": {"validation": 0.2, "test": 0.4, "every": size.rounds, "metrics": ["dice"], "spread": "none"},
        }
    )


def sites_of(cell: Cell, folder: Path, size: Size) -> tuple[SiteConfig, ...]:
    """The phantom hospitals of a cell, written where they are not."""
    values = (f"{value:g}" for value in asdict(cell.turn.dials).values())
    made = make_phantom(
        folder / "phantoms" / "-".join([str(cell.seed), *values]),
        sites=size.sites,
        cases=size.cases,
        dimensions=2,
        difference=DIFFERENCE,
        seed=cell.seed,
        dials=cell.turn.dials,
    )
    labels = {organ: i + 1 for i, organ in enumerate(ORGANS)}
    return tuple(SiteConfig(name=f.name, data=f.resolve(), layout="nnunet", labels=labels) for f in made)


def run_cell(cell: Cell, folder: Path, size: Size = USUAL) -> dict[str, Any]:
    """Train and test; the cell's result. What the run wrote is removed again."""
    task, sites = study(cell, size), sites_of(cell, folder, size)
    home = folder / "work" / cell.key
    shutil.rmtree(home, ignore_errors=True)
    field = Field(sites, folder / "cache", home / "sites")
    there = field.open()[:-1]
    at_fault = len(there) - 1
    grid = FaultyGrid(make_app(partial(_site, there)), len(there), at_fault, cell.turn.fault)
    members = join(grid, task)
    run = Run(grid, task, home / "run", [members[s.name] for s in sites], [members[s.name] for s in sites])
    stopped = None
    try:
        run.start()
    except RoundError as error:
        stopped = str(error).partition(";")[0]
    events = read_events(home / "run" / "events.jsonl")
    shutil.rmtree(home)
    return result_of(cell, events, [s.name for s in sites[:at_fault]], stopped)


def result_of(cell: Cell, events: Sequence[Event], counted: Sequence[str], stopped: str | None) -> dict[str, Any]:
    """What a run's events say of the `counted` sites."""
    dice = {e["site"]: e["dice"] for e in events if e["event"] == "evaluated" and e["part"] == "test"}
    told = {e["site"]: e["why"] for e in events if e["event"] == "failed" and "deadline" not in e["why"]}
    last = [e for e in events if e["event"] == "checkpoint"]
    return {
        "strategy": cell.strategy, "dial": cell.turn.dial, "strength": cell.turn.strength, "seed": cell.seed,
        "sites": {name: dice[name] for name in counted if name in dice},
        "folded": sum(len(e["sites"]) for e in events if e["event"] == "folded"),
        "best_round": last[-1]["best_round"] if last else None,
        "failures": told, "stopped": stopped,
    }  # fmt: skip


def _site(sites: Sequence[OpenSite], context: Context) -> OpenSite:
    return sites[int(context.node_config["partition-id"])]


def found(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The cell's result, if it is there already."""
    path = folder / "cells" / f"{cell.key}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def work(cell: Cell, folder: Path, size: Size) -> None:
    """One cell, in whatever process."""
    torch.set_num_threads(1)
    text = json.dumps(run_cell(cell, folder, size), indent=1, allow_nan=False)
    path = folder / "cells" / f"{cell.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: part.write_text(text, "utf-8"))


def matrix(strategies: Sequence[str], dials: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Every cell that is asked for, column by column, so that each dial's phantoms are made once."""
    for seed in range(1, seeds + 1):
        for turn in TURNS:
            if turn.dial in dials:
                yield from (Cell(strategy, turn, seed) for strategy in strategies)


def run_all(cells: Sequence[Cell], folder: Path, jobs: int, size: Size = USUAL) -> list[dict[str, Any]]:
    """The results of all cells, in their order; those that are there are not made again."""
    missing = [cell for cell in cells if found(cell, folder) is None]
    # Phantoms are written before any process starts: two would write the same files at once.
    for cell in missing:
        sites_of(cell, folder, size)
    if jobs == 1:
        for cell in missing:
            work(cell, folder, size)
            print(cell.key, flush=True)
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            for cell, _ in zip(missing, pool.map(work, missing, repeat(folder), repeat(size)), strict=True):
                print(cell.key, flush=True)
    return [result for cell in cells if (result := found(cell, folder)) is not None]


def main() -> int:
    """Run what is missing, and write the results, the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    dials = list(dict.fromkeys(turn.dial for turn in TURNS))
    parser.add_argument("--out", type=Path, default=Path("fedscan-runs/dials"), help="results; gone on with if there")
    parser.add_argument("--jobs", type=int, default=1, help="cells at the same time")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions, with other weights and other patients")
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=list(STRATEGIES))
    parser.add_argument("--dials", type=lambda text: text.split(","), default=dials, help=", ".join(dials))
    parser.add_argument("--page", type=Path, help="folder that gets dials.md and dials.png; OUT if none")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cells = list(matrix(arguments.strategies, arguments.dials, arguments.seeds))
    results = run_all(cells, arguments.out, arguments.jobs)
    text = json.dumps(results, indent=1, allow_nan=False)
    write_whole(arguments.out / RESULTS, lambda part: part.write_text(text, "utf-8"))
    write_page(results, arguments.page or arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
