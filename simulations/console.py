"""A simulation as the terminal shows it: progress with the time left, a table at the end."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from common.documents import Document
from common.errors import StudyError
from common.start import start_file
from common.study import study_of
from common.study_check import fits
from server.events import Event
from server.report.sentences import number
from server.report.sweep import table
from server.report.terminal import print_summary
from simulations.arms import Arm
from simulations.axes import axis, trials
from simulations.config import compared, leaves_one_out, pooled_fits, simulated_sites
from simulations.phantom import Format
from simulations.results import RESULTS
from simulations.run import Watcher, simulate
from simulations.simulation import Engine, Simulation
from simulations.sites import Field
from simulations.sweep import RESULTS as SWEEP
from simulations.sweep import sweep

SHOWN = 10  # trials of a sweep
DEMO = Path(__file__).with_name("phantom.yaml")  # the study that is simulated when none is named


class Bars(Watcher):
    """One bar for the work at hand, one line for each finished run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console,
        )  # fmt: skip
        self._task: TaskID | None = None

    def phase(self, title: str, total: int) -> None:
        """A new bar."""
        if self._task is not None:
            self.progress.remove_task(self._task)
        self._task = self.progress.add_task(title, total=total, note="")

    def step(self, steps: int = 1) -> None:
        """So many steps on."""
        if self._task is not None:
            self.progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        """A line."""
        self._console.print(f"[yellow]note:[/yellow] {text}")

    def event(self, arm: Arm, event: Event) -> None:
        """Validation beside the bar; failures and ends as lines."""
        if self._task is None:
            return
        if event["event"] == "evaluated" and event["part"] == "validation":
            self.progress.update(self._task, note=f"round {event['round']} · {event['site']} Dice {event['dice']:.3f}")
        elif event["event"] == "failed":
            self._console.print(f"{arm.run} round {event['round']}: [red]{event['site']}: {event['why']}[/red]")
        elif event["event"] == "finished":
            rounds = f"{event['round']} rounds in" if event["round"] else "judged in"
            best = f", best after round {event['best_round']}" if event["round"] else ""
            self._console.print(f"{arm.run}: {rounds} {event['seconds']:.0f} s{best}")


def run(
    study: Path | None, data: Path | None, out: Path, engine: Engine, seeds: int, resume: bool,
    phantom: Format | None = None,
) -> None:  # fmt: skip
    """Read the study, simulate it, show the result."""
    console = Console()
    document = Document.read(study or DEMO)
    parsed = study_of(document)
    fits(document, parsed)
    if not parsed.trains and seeds > 1:
        raise StudyError(
            "--seeds: the study trains nothing (rounds.number: 0), so every seed says the same; leave it out"
        )
    folder = _folder(out, f"{parsed.name}-{parsed.digest()[:8]}", resume)
    sites = simulated_sites(document, parsed, data, folder, phantom)
    pooled_fits(document, parsed, sites)
    simulation = Simulation(
        parsed,
        tuple(sites),
        tuple(compared(document, parsed)),
        folder,
        out / "cache",
        seeds,
        engine,
        leaves_one_out(document, parsed, sites),
        start_file(parsed, document.path.parent),
    )
    bars = Bars(console)
    try:
        with bars.progress:
            report = simulate(simulation, bars)
    except KeyboardInterrupt:
        console.print("Nothing that was finished is lost: the same command with --resume goes on.")
        raise
    print_summary(json.loads((folder / RESULTS).read_text("utf-8")), console)
    console.print(f"Report: {report}", soft_wrap=True)


def run_sweep(
    study: Path | None, data: Path | None, out: Path, texts: Sequence[str], seeds: int, jobs: int | None,
    resume: bool, phantom: Format | None = None,
) -> None:  # fmt: skip
    """Read the study, try every combination of what is varied, show the best ones."""
    console = Console()
    document = Document.read(study or DEMO)
    parsed = study_of(document)
    wanted = trials(document, [axis(text) for text in texts])
    if parsed.evaluation.validation == 0:
        raise document.error(("evaluation", "validation"), "is 0: a sweep chooses on validation cases")
    digest = hashlib.sha256("".join(sorted(t.study.digest() for t in wanted)).encode()).hexdigest()
    folder = _folder(out, f"{parsed.name}-sweep-{digest[:8]}", resume)
    sites = simulated_sites(document, parsed, data, folder, phantom, [t.study for t in wanted])
    field = Field(tuple(sites), (out / "cache").resolve(), folder.resolve())
    every = range(parsed.seed, parsed.seed + seeds)
    bars = Bars(console)
    with bars.progress:
        bars.phase("trials", len(wanted))
        count = jobs or max(1, (os.cpu_count() or 1) // 2)
        report = sweep(
            folder, wanted, field, every, count, lambda trial: bars.step(), start_file(parsed, document.path.parent)
        )
    rows = table(json.loads((folder / SWEEP).read_text("utf-8")))
    for row in rows[:SHOWN]:
        chosen = "  (chosen)" if row["chosen"] else ""
        console.print(f"{number(row['validation'])}  {row['trial']}{chosen}", markup=False, highlight=False)
    console.print(f"Report: {report}", soft_wrap=True)


def _folder(out: Path, name: str, resume: bool) -> Path:
    """A folder that does not exist yet, or with `resume` the newest that does."""
    number = 1
    while (out / f"{name}-{number}").exists():
        number += 1
    if resume and number == 1:
        raise StudyError(
            f"nothing to resume: {out} holds no simulation of this study ({name}). To begin one: the same command "
            "without --resume"
        )
    return out / f"{name}-{number - 1 if resume else number}"
