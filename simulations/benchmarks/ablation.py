"""What makes a federation of a net with batch normalisation fail: `python -m simulations.benchmarks.ablation`.

FLamby's published Fed-IXI result (FedAvg 0.773 where pooled training has 0.987) comes of three things at once; here
they are told apart on the hippocampus scans: what is done with the running statistics, the optimiser, and how often the
sites meet. Every run is one of the ordinary rounds over the ordinary sites, with 700 updates per site and one net; only
the scoring with the first site's statistics is of this benchmark alone. Test cases are read once, at the end; where
several learning rates stand, that with the best validation is tested.

Every cell is kept in OUT: the same command goes on where it was, and prints the table of all that is there.
"""

import common.quiet  # noqa: F401

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from client.data.prepare import prepare
from common.documents import Document
from common.study import Study, study_of
from simulations.benchmarks.ablation_cells import SCORINGS, Scores, score, train
from simulations.config import simulated_sites
from simulations.resume import alone, same_cases
from simulations.sites import Field

EXAMPLE = Path(__file__).parents[2] / "examples" / "hippocampus-mr.yaml"
UPDATES = 700
# Voxels of 2.5 mm and patches of a whole case, for the time it takes. FLamby's net has 246,156 parameters.
PLAN: dict[str, Any] = {"spacing": [2.5, 2.5, 2.5], "patch": [16, 20, 16]}
NET: Mapping[str, Any] = {"name": "unet", "width": 14, "levels": 3, "norm": "batch"}
SGD: Mapping[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "optimizer_state": "reset"}
ADAMW: Mapping[str, Any] = {"optimizer": "adamw", "optimizer_state": "keep"}
TITLES = {"first": "first site's", "own": "each its own", "pooled": "aggregated", "anew": "measured anew"}


@dataclass(frozen=True)
class Row:
    """A row of the table: one setting, at one or several learning rates.

    Attributes:
        title: What is done.
        rates: Of which that with the best validation is tested.
        rounds: Into which the updates are divided.
        training: Of the study.
        schedule: Of the learning rate, over all updates.
        method: As in a simulation.
        norm: Of the net.
    """

    title: str
    rates: tuple[float, ...]
    rounds: int
    training: Mapping[str, Any] = field(default_factory=lambda: ADAMW)
    schedule: Literal["constant", "poly"] = "constant"
    method: Literal["fedavg", "local", "pooled_t", "pooled_kt"] = "fedavg"
    norm: Literal["batch", "instance"] = "batch"

    def study(self, base: Study, rate: float, seed: int, updates: int) -> Study:
        """The study of one run."""
        told = base.model_dump(mode="json")
        how = {"rate": rate, "schedule": self.schedule, "steps": max(1, updates // self.rounds), "augment": "none"}
        told |= {"seed": seed, "net": {**NET, "norm": self.norm}}
        told["training"] |= {**self.training, **how}
        told["rounds"] |= {"number": self.rounds, "buffers": "local"}
        told["evaluation"] |= {"every": self.rounds, "metrics": ["dice"], "spread": "none"}
        return Study.model_validate(told)


ROWS = {
    "published": Row("SGD, as published", (1e-3,), 7, SGD),
    "adamw": Row("AdamW", (1e-3,), 7),
    "pooled-adamw": Row("pooled T, AdamW", (1e-3,), 7, method="pooled_t"),
    "pooled-published": Row("pooled T, SGD", (1e-3,), 7, SGD, method="pooled_t"),
    "adamw-often": Row("AdamW", (1e-3,), 70),
    "adamw-often-decay": Row("AdamW, decay", (1e-3,), 70, schedule="poly"),
    "sgd-tenth": Row("SGD, rate 100 times higher", (0.1,), 7, SGD),
    "pooled-sgd-tenth": Row("pooled T, SGD, rate 100 times higher", (0.1,), 7, SGD, method="pooled_t"),
    "pooled-kt": Row("pooled K·T, AdamW", (1e-3,), 7, method="pooled_kt"),
    "local": Row("local, AdamW", (1e-3,), 7, method="local"),
    "often": Row("SGD", (1e-3,), 70, SGD),
    "adamw-decay": Row("AdamW, decay", (1e-3,), 7, schedule="poly"),
    "searched": Row("AdamW, decay, rate searched", (3e-3, 8e-3), 70, schedule="poly"),
    "instance": Row("AdamW, instance norm", (1e-3,), 7, norm="instance"),
}


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        base: The study of which every cell is a variant.
        out: Where the cells lie.
        rows: By key.
        seeds: Of weights and batches; the division of the patients is the study's.
        updates: Per site.
    """

    base: Study
    out: Path
    rows: Mapping[str, Row]
    seeds: Sequence[int]
    updates: int = UPDATES

    @property
    def described(self) -> Path:
        """The file in which the sites are described."""
        return self.out / "field.json"

    def arguments(self, key: str, rate: float, seed: int) -> tuple[str, str, Path, Path]:
        """Of `train` and `score`; the folder is of this very study."""
        row = self.rows[key]
        study = row.study(self.base, rate, seed, self.updates)
        folder = self.out / f"{key}-{study.digest()[:12]}"
        return study.model_dump_json(), row.method, folder, self.described


def measure(plan: Plan, jobs: int, say: Callable[[str], None]) -> dict[str, list[tuple[float, Scores]]]:
    """Train all cells of `plan`, choose the rates, test; by row, the rate and the scores under each seed."""
    # Row after row within a seed: what is interrupted has the first rows whole.
    wanted = [(key, rate, seed) for seed in plan.seeds for key, row in plan.rows.items() for rate in row.rates]
    # One job stays in this process, which is not started twice for it.
    several = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("spawn"))
    with (several if jobs > 1 else ThreadPoolExecutor)(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        training = {cell: pool.submit(train, *plan.arguments(*cell)) for cell in wanted}
        for cell, future in training.items():
            say(f"{' '.join(map(str, cell))}: validation {future.result():.4f}")
        chosen = {key: best(key, row, plan.seeds, training) for key, row in plan.rows.items()}
        tests = {(key, seed): pool.submit(score, *plan.arguments(key, rate, seed))
                 for key, rate in chosen.items() for seed in plan.seeds}  # fmt: skip
        return {key: [(rate, tests[key, seed].result()) for seed in plan.seeds] for key, rate in chosen.items()}


def best(key: str, row: Row, seeds: Sequence[int], training: Mapping[tuple[str, float, int], Future[float]]) -> float:
    """The rate of the row that has the best mean validation over the seeds."""
    return max(row.rates, key=lambda rate: statistics.fmean(training[key, rate, seed].result() for seed in seeds))


def table(plan: Plan, found: Mapping[str, Sequence[tuple[float, Scores]]]) -> Iterable[str]:
    """The Markdown lines: mean Dice over all test cases of all sites, mean over the seeds."""
    yield f"| training | rate | rounds × updates | {' | '.join(TITLES[s] for s in SCORINGS)} |"
    yield f"|{'---|' * (3 + len(SCORINGS))}"
    for key, results in found.items():
        row = plan.rows[key]
        cells = [_mean([scores[s] for _, scores in results if s in scores]) for s in SCORINGS]
        yield f"| {row.title} | {results[0][0]:g} | {row.rounds} × {plan.updates // row.rounds} | {' | '.join(cells)} |"


def by_site(plan: Plan, found: Mapping[str, Sequence[tuple[float, Scores]]]) -> Iterable[str]:
    """The same by site, one line for each way of scoring."""
    names = [c.name for c in Field.read(plan.described).configs]
    yield f"| row | statistics | {' | '.join(names)} |"
    yield f"|{'---|' * (2 + len(names))}"
    for key, results in found.items():
        for scoring in [s for s in SCORINGS if s in results[0][1]]:
            cells = [_mean([{n: scores[scoring][n]} for _, scores in results]) for n in names]
            yield f"| {key} | {TITLES[scoring]} | {' | '.join(cells)} |"


def _mean(scores: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Mean over seeds of the mean over all cases; several seeds with the smallest and the largest."""
    means = [statistics.fmean(v for values in one.values() for v in values) for one in scores]
    if not means:
        return "–"
    spread = f" ({min(means):.3f}–{max(means):.3f})" if len(means) > 1 else ""
    return f"{statistics.fmean(means):.3f}{spread}"


def prepared(out: Path, data: Path | None) -> Study:
    """Describe the sites in OUT, fill the cache, and return the study of which every cell is a variant."""
    document = Document.read(EXAMPLE)
    base = study_of(document)
    base = Study.model_validate(base.model_dump(mode="json") | {"plan": base.plan.model_dump(mode="json") | PLAN})
    where = Field(tuple(simulated_sites(document, base, data, out)), out / "cache", out / "sites")
    where.write(out / "field.json")
    study = ROWS["published"].study(base, 1e-3, base.seed, UPDATES)
    same_cases(out / "cases.json", {c.name: prepare(study, c, cache=where.cache, home=where.homes / c.name)
                                    for c in where.configs})  # fmt: skip
    return base


def main() -> int:
    """Run, and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS), help="separated by commas")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from the study's on")
    parser.add_argument("--updates", type=int, default=UPDATES, help="per site; few for a rehearsal")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--data", type=Path, help="folder of the scans; else $FEDSCAN_DATA")
    parser.add_argument("--out", type=Path, default=Path("fedscan-runs/ablation"))
    arguments = parser.parse_args()
    if unknown := [key for key in arguments.rows if key not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with alone(arguments.out):
        base = prepared(arguments.out, arguments.data)
        seeds = range(base.seed, base.seed + arguments.seeds)
        plan = Plan(base, arguments.out, {k: ROWS[k] for k in arguments.rows}, seeds, arguments.updates)
        found = measure(plan, arguments.jobs, lambda text: print(text, file=sys.stderr, flush=True))
    print("\n".join([*table(plan, found), "", *by_site(plan, found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
