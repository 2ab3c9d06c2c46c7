"""All figures of a simulation in one structure, which the report is made of (results.json)."""

import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from client.results import read_results
from common.study import Study
from common.wire import Schema
from server.events import Event, read_events
from simulations.arms import Arm, arms, methods
from simulations.baselines import consensus_results
from simulations.gallery import paint
from simulations.simulation import Simulation
from simulations.sites import pick_device

FORMAT = 1
RESULTS = "results.json"


def is_finished(simulation: Simulation) -> bool:
    """Whether the results of this very simulation are there; they are written last."""
    try:
        results = json.loads((simulation.out / RESULTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return {k: results.get(k) for k in ("format", "seeds", "methods")} == {
        "format": FORMAT,
        "seeds": _seeds(simulation),
        "methods": _methods(simulation),
    }


def collect(simulation: Simulation) -> dict[str, Any]:
    """Everything the report needs, from the runs' events and the sites' per-case results."""
    cases: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    started: list[str] = []
    for study, folder in simulation.seeded():
        field = simulation.field(folder)
        for arm in arms(study, simulation.compare, field.training):
            events = read_events(folder / "runs" / arm.run / "events.jsonl")
            started.append(events[0]["time"])
            chosen = events[-1]["best_round"] or events[-1]["round"]
            cost = _cost(arm, events)
            costs.append({"seed": study.seed, **cost})
            curves += [{"seed": study.seed, **row} for row in _curve(arm, events)]
            for config in field.configs:
                path = field.homes / config.name / "results" / arm.run / f"round-{chosen:05d}-test.json"
                cases += _rows(study.seed, arm.method, arm.trained_on, config.name, path)
        for config in field.configs:
            path = consensus_results(field.homes / config.name)
            cases += _rows(study.seed, "consensus", "all", config.name, path)
    return {
        "format": FORMAT,
        "study": _study(simulation.study),
        "versions": {p: importlib.metadata.version(p) for p in ("fedscan", "flwr", "torch", "monai")}
        | {"python": platform.python_version()},
        "engine": simulation.engine,
        "device": str(pick_device(simulation.sites[0].device)),
        "started": min(started),
        "seeds": _seeds(simulation),
        "labels": list(simulation.study.data.labels),
        "sites": _sites(simulation),
        "methods": _methods(simulation),
        "cases": cases,
        "curves": curves,
        "costs": costs,
        "pictures": list(paint(simulation, cases, costs)),
    }


def _seeds(simulation: Simulation) -> list[int]:
    return [s.seed for s, _ in simulation.seeded()]


def _methods(simulation: Simulation) -> list[dict[str, str]]:
    return [{"key": m.key, "title": m.title, "kind": m.kind} for m in methods(simulation.compare)]


def _rows(seed: int, method: str, trained_on: str, site: str, path: Path) -> Iterator[dict[str, Any]]:
    for row in read_results(path):
        yield {"seed": seed, "method": method, "trained_on": trained_on, "site": site, **row}


def _curve(arm: Arm, events: list[Event]) -> Iterator[dict[str, Any]]:
    updates = 0.0
    for number in range(1, arm.study.rounds.number + 1):
        here = [e for e in events if e.get("round") == number]
        trained = [e for e in here if e["event"] == "trained"]
        if not trained:
            continue
        updates += max(e["steps"] for e in trained)
        yield {
            "method": arm.method, "trained_on": arm.trained_on, "round": number, "updates": int(updates),
            "loss": {e["site"]: e["loss"] for e in trained},
            "validation": {e["site"]: e["dice"] for e in here
                           if e["event"] == "evaluated" and e["part"] == "validation" and e["num-examples"] > 0},
        }  # fmt: skip


def _cost(arm: Arm, events: list[Event]) -> dict[str, Any]:
    trained = [e for e in events if e["event"] == "trained"]
    evaluated = [e for e in events if e["event"] == "evaluated"]
    size = trained[0]["bytes"] if trained else 0
    return {
        "method": arm.method, "trained_on": arm.trained_on, "seconds": events[-1].get("seconds", 0.0),
        "updates": int(sum(e["steps"] for e in trained)),
        "bytes_up": sum(e["bytes"] for e in trained), "bytes_down": size * (len(trained) + len(evaluated)),
        "best_round": events[-1]["best_round"],
        "validation": _mean([e["dice"] for e in evaluated if e["part"] == "validation" and e["num-examples"] > 0
                             and e["round"] == events[-1]["best_round"]]),
    }  # fmt: skip


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _study(study: Study) -> dict[str, Any]:
    schema = Schema.of(study)
    return {
        "name": study.name, "description": study.description, "digest": study.digest(),
        "yaml": yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "net": {"name": study.net.name, "parameters": sum(schema.sizes.values()), "bytes_fp32": schema.nbytes},
    }  # fmt: skip


def _sites(simulation: Simulation) -> list[dict[str, Any]]:
    study, folder = simulation.seeded()[0]
    rows = []
    for site in simulation.field(folder).open()[:-1]:
        data = site.data(study)
        cases = (*data.train, *data.validation, *data.test)
        rows.append({
            "name": site.config.name, "use": site.config.use, "train": len(data.train),
            "validation": len(data.validation), "test": len(data.test), "patients": len({c.patient for c in cases}),
            "findings": [{"code": f.code, "severity": f.severity, "case": f.case, "what": f.what, "remedy": f.remedy}
                         for f in data.findings],
        })  # fmt: skip
    return rows
