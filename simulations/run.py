"""One study, several hospitals, one machine: every arm of every seed, then the report."""

import common.quiet  # noqa: F401

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from client.app import make_app
from common.disk import write_whole
from common.errors import DataError, StudyError
from common.study import Study
from server.events import Event
from server.report.html import write_report
from server.rounds import Member, Run, join
from simulations.arms import POOLED, Arm, arms
from simulations.baselines import consensus
from simulations.inline import InlineGrid
from simulations.results import RESULTS, collect, is_finished
from simulations.resume import alone, same_cases, spent
from simulations.simulation import Simulation


class Watcher:
    """Told of what happens; the command line shows it. Every method may be left as it is."""

    def phase(self, title: str, total: int) -> None:
        """A new piece of work with `total` steps begins."""

    def step(self, steps: int = 1) -> None:
        """So many steps of it are done."""

    def event(self, arm: Arm, event: Event) -> None:
        """A run reported an event."""


def simulate(simulation: Simulation, watcher: Watcher) -> Path:
    """Run, or go on with, all arms of all seeds; returns the report's path.

    Raises:
        DataError: A site has no usable case.
        StudyError: The sites do not fit the study, are not those that the simulation began with, or it is running.
        RoundError: A round missed its quorum.
    """
    names = [c.name for c in simulation.sites]
    if POOLED in names:
        raise StudyError(f"a site may not be called '{POOLED}': the pooled baseline has that name")
    if sum(c.use == "train" for c in simulation.sites) < 1:
        raise StudyError("no site trains: at least one must have use: train")
    simulation.out.mkdir(parents=True, exist_ok=True)
    with alone(simulation.out):
        return _simulate(simulation, watcher)


def _simulate(simulation: Simulation, watcher: Watcher) -> Path:
    clock, before = time.monotonic(), spent(simulation.out)
    for study, folder in simulation.seeded():
        folder.mkdir(exist_ok=True)
        _prepare(simulation, study, folder, watcher)
    if not is_finished(simulation):
        for study, folder in simulation.seeded():
            field = simulation.field(folder)
            plan = arms(study, simulation.compare, field.training)
            _run_arms(simulation, study, folder, plan, watcher)
            consensus(study, field, [a for a in plan if a.method == "local"], folder)
        results = collect(simulation) | {"seconds": before + time.monotonic() - clock}
        text = json.dumps(results, indent=1, allow_nan=False)
        write_whole(simulation.out / RESULTS, lambda part: part.write_text(text, encoding="utf-8"))
    return write_report(simulation.out)


def _prepare(simulation: Simulation, study: Study, folder: Path, watcher: Watcher) -> None:
    """Fill the cache before any engine starts, so that a bad site stops the simulation at once."""
    field = simulation.field(folder)
    watcher.phase(f"seed {study.seed}: preparing {len(field.configs)} sites", len(field.configs))
    problems, data = [], {}
    for site in field.open()[:-1]:
        try:
            data[site.config.name] = site.data(study)
        except DataError as error:
            problems.append(f"site {site.config.name}: {error}")
        watcher.step()
    if problems:
        raise DataError("\n".join(problems))
    same_cases(folder / "cases.json", data)


def _run_arms(simulation: Simulation, study: Study, folder: Path, plan: Sequence[Arm], watcher: Watcher) -> None:
    field = simulation.field(folder)

    def tell(arm: Arm, train: Sequence[Member], event: Event) -> None:
        if event["event"] == "resumed":
            watcher.step(event["after"] * sum(m.steps for m in train))
        elif event["event"] == "trained" and simulation.engine == "ray":
            # Steps in other processes are not seen one by one.
            watcher.step(int(event["steps"]))
        watcher.event(arm, event)

    def work(grid: Grid) -> None:
        members = join(grid, study)
        missing = {*field.training, *(c.name for c in field.configs), POOLED} - members.keys()
        if missing:
            raise DataError(f"these sites did not answer: {', '.join(sorted(missing))}")
        test = [members[c.name] for c in field.configs]
        for arm in plan:
            train = [members[name] for name in arm.train]
            watcher.phase(f"seed {study.seed}: {arm.run}", _updates(arm, train))
            Run(grid, arm.study, folder / "runs" / arm.run, train, test, partial(tell, arm, train)).start()

    if simulation.engine == "ray":
        from simulations.ray_engine import run_on_ray

        run_on_ray(field, folder, work)
    else:
        sites = field.open(watcher.step)
        app = make_app(lambda context: sites[int(context.node_config["partition-id"])])
        work(InlineGrid(app, len(sites)))


def _updates(arm: Arm, train: Sequence[Member]) -> int:
    return arm.study.rounds.number * sum(m.steps for m in train)
