"""One study, several hospitals, one machine: every arm of every seed, then the report."""

import common.quiet  # noqa: F401

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from client.app import make_app
from client.data.overlap import duplicates_between
from client.data.volume import Finding, SiteData
from common.disk import write_whole
from common.errors import DataError, RoundError
from common.start import first_weights
from common.study import Study
from common.wire import Schema
from server.events import Event
from server.joining import Member, join
from server.report.html import write_report
from server.rounds import Run
from simulations.arms import POOLED, Arm
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

    def note(self, text: str) -> None:
        """Something that the user should know, and that stops nothing."""

    def event(self, arm: Arm, event: Event) -> None:
        """A run reported an event."""


def simulate(simulation: Simulation, watcher: Watcher) -> Path:
    """Run, or go on with, all arms of all seeds; returns the report's path.

    Raises:
        DataError: A site has no usable case.
        StudyError: The sites do not fit the study, are not those that the simulation began with, or it is running.
        ModelError: The study's `start` is not the file that it names, or does not fit its net.
        RoundError: A round missed its quorum.
    """
    simulation.out.mkdir(parents=True, exist_ok=True)
    with alone(simulation.out):
        return _simulate(simulation, watcher)


def _simulate(simulation: Simulation, watcher: Watcher) -> Path:
    clock, before = time.monotonic(), spent(simulation.out)
    _check_start(simulation)
    for study, folder in simulation.seeded():
        folder.mkdir(exist_ok=True)
        _prepare(simulation, study, folder, watcher)
    if not is_finished(simulation):
        for study, folder in simulation.seeded():
            field = simulation.field(folder)
            plan = simulation.arms(study, field.training)
            _run_arms(simulation, study, folder, plan, watcher)
            local = [a for a in plan if a.method == "local"]
            consensus(study, field, local, folder, partial(_tell, watcher, f"seed {study.seed}: consensus at"))
        results = collect(simulation) | {"seconds": before + time.monotonic() - clock}
        text = json.dumps(results, indent=1, allow_nan=False)
        write_whole(simulation.out / RESULTS, lambda part: part.write_text(text, encoding="utf-8"))
    return write_report(simulation.out)


def _check_start(simulation: Simulation) -> None:
    """Hold the study's `start` against the net of every run that has yet to begin, before any work is done."""
    for study, folder in simulation.seeded() if simulation.study.start is not None else ():
        for arm in simulation.arms(study, simulation.field(folder).training):
            if not (folder / "runs" / arm.run / "checkpoints" / "state.json").exists():
                first_weights(arm.study, Schema.of(arm.study), simulation.start)


def _prepare(simulation: Simulation, study: Study, folder: Path, watcher: Watcher) -> None:
    """Fill the cache before any engine starts, so that a bad site stops the simulation at once."""
    field = simulation.field(folder)
    problems: list[str] = []
    data: dict[str, SiteData] = {}
    for site in field.open(on_case=partial(_tell, watcher, f"seed {study.seed}: preparing"))[:-1]:
        try:
            data[site.config.name] = site.data(study)
        except DataError as error:
            problems.append(str(error))
            continue
        for text in _left_out(site.config.name, data[site.config.name].findings):
            watcher.note(text)
    for finding in duplicates_between(data):
        text = f"{finding.what}. {finding.remedy}"
        if finding.severity == "error":
            problems.append(text)
        else:
            watcher.note(text)
    if problems:
        raise DataError("\n".join(problems))
    same_cases(folder / "cases.json", data)


def _left_out(site: str, findings: Sequence[Finding]) -> Iterator[str]:
    """One line per kind of problem that leaves cases of `site` out; with one case as the example."""
    errors = [finding for finding in findings if finding.severity == "error"]
    for code, number in Counter(finding.code for finding in errors).items():
        first = next(finding for finding in errors if finding.code == code)
        cases = "1 case is" if number == 1 else f"{number} cases are"
        yield f"site {site}: {cases} left out ({code}): {first.what}. {first.remedy}"


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
        real = [members[name] for name in field.training] if study.trains else test
        for arm in plan:
            train = [members[name] for name in arm.train]
            watcher.phase(f"seed {study.seed}: {arm.run}", _updates(arm, train))
            # Pooled models are chosen by what federated ones are chosen by: the mean over the real sites.
            validate = real if arm.train == (POOLED,) else train
            tested = test if arm.without is None else [members[arm.without]]
            run = Run(grid, arm.study, folder / "runs" / arm.run, train, tested, validate, partial(tell, arm, train),
                      start=simulation.start)  # fmt: skip
            try:
                run.start()
            except RoundError:
                # A baseline that diverged is a gap in the report; its event says why.
                if arm.federated:
                    raise

    if simulation.engine == "ray":
        from simulations.ray_engine import run_on_ray

        run_on_ray(field, folder, work)
    else:
        sites = field.open(watcher.step)
        app = make_app(lambda context: sites[int(context.node_config["partition-id"])])
        work(InlineGrid(app, len(sites)))


def _tell(watcher: Watcher, what: str, site: str, done: int, total: int) -> None:
    """Progress through the cases of one site."""
    if done == 1:
        watcher.phase(f"{what} {site}", total)
    watcher.step()


def _updates(arm: Arm, train: Sequence[Member]) -> int:
    return arm.study.rounds.number * sum(m.steps for m in train)
