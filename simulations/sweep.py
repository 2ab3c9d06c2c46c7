"""Many studies over the same sites: tried on validation cases, the best one tested once, at the end.

OUT/field.json seeds.json        the sites and seeds of all trials
OUT/DIGEST/study.json            one trial; its runs in seed-S/, as those of a simulation
OUT/sweep.json sweep.html        what came of it
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.site import SiteConfig
from client.work.results import read_results
from common.disk import write_whole
from common.errors import RoundError
from common.measured import measured
from common.study import Study
from server.events import read_events
from server.report.rounds import cost
from server.report.sweep import choose_trial, write_sweep
from simulations.axes import Trial
from simulations.baselines import is_finished
from simulations.resume import alone
from simulations.sites import Field
from simulations.trial import FIELD, SEEDS, STUDY, WHY, tested

RESULTS = "sweep.json"
POLL = 0.2
Row = dict[str, Any]


def sweep(
    out: Path, trials: Sequence[Trial], field: Field, seeds: Sequence[int], jobs: int, done: Callable[[Trial], None],
    start: Path | None = None,
) -> Path:  # fmt: skip
    """Run, or go on with, all trials, choose by validation, test the chosen one; returns the report's path.

    Args:
        out: Folder of the sweep.
        trials: What is compared.
        field: The sites.
        seeds: Each trial is trained once with each of them.
        jobs: Trials at the same time, each in a process.
        done: Told of each trial that ended, well or not.
        start: The file of the studies' `start`.

    Raises:
        StudyError: Another process works in `out`.
        RoundError: No trial could be trained and validated under all seeds, or the chosen one could not be tested.
    """
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        field.write(out / FIELD)
        (out / SEEDS).write_text(json.dumps(list(seeds)), "utf-8")
        for trial in trials:
            (out / trial.key).mkdir(exist_ok=True)
            (out / trial.key / STUDY).write_text(_with_start(trial.study, start), "utf-8")
        for trial in (ended := [t for t in trials if _ended(out, t, seeds)]):
            done(trial)
        _all(out, [t for t in trials if t not in ended], "run", jobs, done)
        results = _collect(out, trials, field, seeds)
        chosen = choose_trial(results)
        if chosen is None:
            raise RoundError(f"no trial ended with a validation under every seed: {_why(results)}")
        (best,) = [t for t in trials if t.key == chosen]
        _all(out, [best], "test", 1, lambda trial: None)
        if (out / best.key / WHY).exists():
            raise RoundError(f"the chosen trial could not be tested: {(out / best.key / WHY).read_text('utf-8')}")
        results["test"] = _test(out, best, field.configs, seeds)
        text = json.dumps(results, indent=1, allow_nan=False)
        write_whole(out / RESULTS, lambda part: part.write_text(text, encoding="utf-8"))
        return write_sweep(out)


def _with_start(study: Study, start: Path | None) -> str:
    """The study as JSON; unlike its canonical form with the place of the file with which it begins."""
    data = study.model_dump(mode="json")
    if start is not None and data["start"] is not None:
        data["start"]["file"] = str(start.resolve())
    return json.dumps(data)


def _all(out: Path, trials: Sequence[Trial], what: str, jobs: int, done: Callable[[Trial], None]) -> None:
    """One process for each trial, `jobs` at a time."""
    waiting = list(trials)
    with _running() as running:
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                command = [sys.executable, "-P", "-m", "simulations.trial", str(out / trial.key), what]
                process = subprocess.Popen(command, env=_environment(jobs))  # noqa: S603 - our own command
                running[process] = trial
            for process in [p for p in running if p.poll() is not None]:
                trial = running.pop(process)
                why = out / trial.key / WHY
                if process.returncode and not why.exists():
                    why.write_text(f"its process ended with {process.returncode}", "utf-8")
                done(trial)
            time.sleep(POLL)


def _ended(out: Path, trial: Trial, seeds: Sequence[int]) -> bool:
    """Whether there is nothing left to train."""
    return all(is_finished(out / trial.key / f"seed-{seed}" / "runs" / "trial") for seed in seeds)


@contextmanager
def _running() -> Iterator[dict[subprocess.Popen[bytes], Trial]]:
    """Processes at work; none outlives this one's interruption."""
    running: dict[subprocess.Popen[bytes], Trial] = {}
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def _environment(jobs: int) -> dict[str, str]:
    """As this process's, with this process's modules and an equal share of the cores for each job."""
    share = max(1, (os.cpu_count() or 1) // jobs)
    return {"OMP_NUM_THREADS": str(share), **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _collect(out: Path, trials: Sequence[Trial], field: Field, seeds: Sequence[int]) -> Row:
    """What the trials reached on validation cases, in the form of a simulation's results."""
    first, names = trials[0].study, [c.name for c in field.configs]
    rows: dict[str, list[Row]] = {"cases": [], "costs": [], "failures": []}
    for trial in trials:
        why = out / trial.key / WHY
        for seed in seeds:
            home = out / trial.key / f"seed-{seed}"
            label: Row = {"seed": seed, "method": trial.key, "trained_on": "all"}
            if not is_finished(home / "runs" / "trial"):
                said = why.read_text("utf-8") if why.exists() else "it did not end"
                rows["failures"].append({**label, "why": said})
                continue
            took = cost(read_events(home / "runs" / "trial" / "events.jsonl"), names)
            rows["costs"].append({**label, **took})
            judged = f"round-{took['best_round'] or 0:05d}-validation.json"
            for site in field.training:
                found = read_results(home / "sites" / site / "results" / "trial" / judged)
                rows["cases"] += [{**label, "site": site, **row} for row in found]
    return {
        "format": 1, "name": first.name, "labels": list(first.data.labels), "seeds": list(seeds),
        "metrics": measured(first),
        "sites": [{"name": n, "use": "train", "test": 0} for n in field.training],
        "methods": [{"key": t.key, "title": t.title, "kind": "federated", "changes": dict(t.changes),
                     "digest": t.study.digest()} for t in trials],
        **rows,
    }  # fmt: skip


def _test(out: Path, best: Trial, sites: Sequence[SiteConfig], seeds: Sequence[int]) -> Row:
    """The chosen trial's test cases."""
    rows = [
        {"seed": seed, "method": best.key, "trained_on": "all", "site": site.name, **row}
        for seed in seeds
        for site in sites
        for row in read_results(tested(out / best.key / f"seed-{seed}", site.name))
    ]
    uses = [{"name": s.name, "use": s.use, "test": sum(r["site"] == s.name for r in rows)} for s in sites]
    return {"method": best.key, "cases": rows, "sites": uses}


def _why(results: Row) -> str:
    return next((f["why"] for f in results["failures"]), "there are no validation cases (evaluation.validation)")
