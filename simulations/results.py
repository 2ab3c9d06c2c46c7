"""All figures of a simulation in one structure, which the report is made of (results.json)."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from client.data.gate.site import folded
from client.device import pick_device
from client.work.results import read_results
from common.measured import measured
from common.nets.describe import net_size
from common.study import Study
from common.wire import Schema
from server.events import Event, read_events
from server.report.own import choices
from server.report.rounds import cost, curve
from simulations.arms import Arm, keyed
from simulations.baselines import consensus_results
from simulations.gallery import paint
from simulations.simulation import Simulation

FORMAT = 1
RESULTS = "results.json"
Row = dict[str, Any]


def is_finished(simulation: Simulation) -> bool:
    """Whether the results of this very simulation are there, and whole: what failed is worth another try."""
    try:
        results = json.loads((simulation.out / RESULTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return {k: results.get(k) for k in ("format", "seeds", "methods", "failures")} == {
        "format": FORMAT,
        "seeds": _seeds(simulation),
        "methods": _methods(simulation),
        "failures": [],
    }


def collect(simulation: Simulation) -> Row:
    """Everything the report needs, from the runs' events and the sites' per-case results.

    A run that did not end has no rows but an entry under `failures`, and so has a site's final test that is not there.
    """
    sites = _sites(simulation)
    rows: dict[str, list[Row]] = {k: [] for k in ("cases", "curves", "costs", "failures", "choices")}
    started: list[str] = []
    for study, folder in simulation.seeded():
        started += _collect_seed(simulation, study, folder, sites, rows)
    return {
        "format": FORMAT,
        "study": _study(simulation),
        "versions": {p: importlib.metadata.version(p) for p in ("fedscan", "flwr", "torch", "monai")}
        | {"python": platform.python_version()},
        "engine": simulation.engine,
        "device": str(pick_device(simulation.sites[0].device)),
        "started": min(started),
        "seeds": _seeds(simulation),
        "judged": not simulation.study.trains,
        "labels": list(simulation.study.data.labels),
        "sites": sites,
        "metrics": measured(simulation.study),
        "methods": _methods(simulation),
        **rows,
        "pictures": list(paint(simulation, rows["cases"], rows["costs"])),
    }


def _collect_seed(
    simulation: Simulation, study: Study, folder: Path, sites: list[Row], rows: dict[str, list[Row]]
) -> list[str]:
    """Add one seed's rows; returns when its runs started."""
    field = simulation.field(folder)
    tested = [s["name"] for s in sites if s["test"]]
    local, lost, started = [], [], []
    plan = simulation.arms(study, field.training)
    for arm in plan:
        seed = {"seed": study.seed, "method": arm.method, "trained_on": arm.trained_on}
        events = read_events(folder / "runs" / arm.run / "events.jsonl")
        started += [e["time"] for e in events[:1]]
        if not events or events[-1]["event"] != "finished":
            why = [e["why"] for e in events if "why" in e]
            where = {} if arm.without is None else {"site": arm.without}
            rows["failures"].append({**seed, **where, "why": why[-1] if why else "it did not end"})
            lost += [arm.trained_on] if arm.method == "local" else []
            continue
        cost = {**seed, **run_cost(arm, events, [c.name for c in field.configs])}
        local += [cost] if arm.method == "local" else []
        rows["costs"].append(cost)
        if arm.without is None:
            rows["curves"] += [{**seed, **row} for row in curve(events, arm.study.rounds.number)]
            rows["choices"] += [{**seed, "run": f"{arm.run}, seed {study.seed}", **row} for row in choices(events)]
        chosen = events[-1]["best_round"] or events[-1]["round"]
        for site in tested if arm.without is None else {arm.without} & set(tested):
            found = read_results(field.homes / site / "results" / arm.run / f"round-{chosen:05d}-test.json")
            rows["cases"] += [{**seed, "site": site, **row} for row in found]
            if not found:
                rows["failures"].append({**seed, "site": site, "why": _why_untested(events, site)})
    seed = {"seed": study.seed, "method": "consensus", "trained_on": "all"}
    for site in tested:
        found = read_results(consensus_results(field.homes / site))
        rows["cases"] += [{**seed, "site": site, **row} for row in found]
    if lost:
        rows["failures"].append({**seed, "why": f"it lacks the local model of {', '.join(lost)}"})
    if local and any(c["seed"] == study.seed and c["method"] == "consensus" for c in rows["cases"]):
        nbytes = Schema.of(next(a.study for a in plan if a.method == "local")).nbytes
        rows["costs"].append({**seed, **consensus_cost(local, nbytes)})
    return started


def _why_untested(events: list[Event], site: str) -> str:
    """What the final test, which follows the last checkpoint, says about `site`."""
    last = max((i for i, e in enumerate(events) if e["event"] == "checkpoint"), default=0)
    why = [e["why"] for e in events[last:] if e["event"] == "failed" and e["site"] == site]
    return why[-1] if why else "its results are not there"


def _seeds(simulation: Simulation) -> list[int]:
    return [s.seed for s, _ in simulation.seeded()]


def _methods(simulation: Simulation) -> list[dict[str, str]]:
    return [{"key": m.key, "title": m.title, "kind": m.kind} for m in simulation.methods()]


def run_cost(arm: Arm, events: list[Event], sites: Sequence[str]) -> Row:
    """What a finished run took; local and pooled training send nothing: their one site has the data and the net.

    Args:
        sites: Roster order, in which the validation Dice of the best round is averaged.
    """
    return cost(events, sites, crossed=arm.crossed)


def consensus_cost(local: Sequence[Row], nbytes: int) -> Row:
    """What the K local models cost together, each sent up once and from there down to the K − 1 other sites."""
    k = len(local)
    return {
        "seconds": sum(c["seconds"] for c in local), "updates": sum(c["updates"] for c in local),
        "bytes_up": k * nbytes, "bytes_down": k * (k - 1) * nbytes, "best_round": None, "validation": None,
    }  # fmt: skip


def _study(simulation: Simulation) -> Row:
    """The study; `method` is the key of its own strategy among the compared ones."""
    study = simulation.study
    own = [key for key, choice in keyed(simulation.compare).items() if choice == study.strategy]
    return {
        "name": study.name, "description": study.description, "digest": study.digest(),
        "yaml": yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "net": {"name": study.net.name, "parameters": net_size(study).parameters,
                "bytes_fp32": Schema.of(study).nbytes},
        "method": own[0] if own else None,
    }  # fmt: skip


def _sites(simulation: Simulation) -> list[Row]:
    study, folder = simulation.seeded()[0]
    rows = []
    for site in simulation.field(folder).open()[:-1]:
        data = site.data(study)
        cases = (*data.train, *data.validation, *data.test)
        rows.append({
            "name": site.config.name, "use": site.config.use if study.trains else "train", "train": len(data.train),
            "validation": len(data.validation), "test": len(data.test), "patients": len({c.patient for c in cases}),
            "findings": [{"code": f.code, "severity": f.severity, "case": f.case, "what": f.what, "remedy": f.remedy}
                         for f in folded(data.findings, len(data.found))],
        })  # fmt: skip
    return rows
