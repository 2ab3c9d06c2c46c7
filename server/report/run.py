"""The report of one run between real sites: a page, tables for other programs, and the model with its card."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from common.bundle import CARD, WEIGHTS, name_of, versions
from common.disk import write_whole
from common.errors import StudyError
from common.measured import measured
from common.metrics import DICE, QUARTILES, TOLD, WORST, count_key, score_key, score_limits
from common.nets.describe import net_size
from common.study import Study
from common.wire import Schema
from server.checkpoint import Checkpoints, State
from server.events import Event, read_events
from server.model import FOLDER, write_model
from server.report import charts
from server.report.html import pages
from server.report.measures import measures
from server.report.own import choices
from server.report.rounds import cost, curve, sizes
from server.report.sentences import number
from server.service.delivery import read_delivery

FORMAT = 1
METHOD = "run"  # the one method of the page's charts
PAGE, ROUNDS, NUMBERS = "report.html", "rounds.csv", "report.json"
Row = dict[str, Any]


def write_run_report(folder: Path, study: Study, status: str, why: str | None = None) -> list[str]:
    """Write the report of the run in `folder` beside its events, over an earlier one.

    Args:
        folder: The run's.
        study: What was run.
        status: Where the run stands.
        why: Why it failed.

    Returns:
        The files, relative to `folder`: the page first.

    Raises:
        StudyError: No round of the run has counted yet.
        CheckpointError: Its checkpoints are damaged.
        StorageError: The disk is full.
    """
    schema = Schema.of(study)
    checkpoints = Checkpoints(folder / "checkpoints", study.digest(), schema)
    state = checkpoints.state()
    if state is None or (state.round == 0 and (study.trains or not state.finished)):
        raise StudyError(f"the run {folder.name} has no finished round yet; see: fedscan run watch {folder.name}")
    events = read_events(folder / "events.jsonl")
    found = facts(folder.name, study, state, events) | {"status": status, "why": why}
    made = write_model(folder, study, state, checkpoints, events)
    found["model"] |= {"hash": made.model, "name": name_of(study, made.model)}
    found["delivery"] = _delivery(folder)
    _write_text(folder / NUMBERS, _json(found))
    write_whole(folder / ROUNDS, lambda part: _write_rounds(part, study, events))
    _write_text(folder / PAGE, render(found))
    return [PAGE, ROUNDS, NUMBERS, f"{FOLDER}/{WEIGHTS}", f"{FOLDER}/{CARD}"]


def facts(run: str, study: Study, state: State, events: Sequence[Event]) -> Row:
    """Everything that the report says, from the run's state and the events that stand."""
    started = next((e for e in events if e["event"] == "started"), {})
    names: list[str] = list(started.get("sites", ()))
    names += sorted({e["site"] for e in events if "site" in e} - set(names))
    took = cost(events, names) | {"seconds": state.seconds}
    chosen = state.best_round or state.round
    sites = [_site(name, events, chosen) for name in names]
    tested = [s["test"]["dice"] for s in sites if s["test"]]
    return {
        "format": FORMAT,
        "run": run,
        "study": {
            "name": study.name, "description": study.description, "digest": state.digest,
            "yaml": yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        },
        "versions": versions(),
        "started": started.get("time"),
        "ended": events[-1]["time"] if events else None,
        "judged": judged(study, sites),
        "round": state.round,
        "rounds": study.rounds.number,
        "labels": list(study.data.labels),
        "sites": sites,
        "choices": list(choices(events)),
        "test": fmean(tested) if tested else None,
        "metrics": measured(study),
        "cost": took,
        "curves": [{"seed": study.seed, "method": METHOD, "trained_on": "all", **row}
                   for row in curve(events, study.rounds.number)],
        "failures": [
            {k: e.get(k) for k in ("time", "round", "site", "why")} for e in events if e["event"] in ("failed", "audit")
        ],
        "decisions": [
            {k: e.get(k) for k in ("time", "during", "site", "code", "why")}
            for e in events if e["event"] in ("refused", "agreed")
        ],
        "model": _model(study, state, chosen),
    }  # fmt: skip


def judged(study: Study, sites: Sequence[Row]) -> str | None:
    """What came of a study that trained nothing, in a sentence; None where something was trained."""
    if study.trains or study.start is None:
        return None
    part = "test" if study.evaluation.test else "validation"
    dice = {s["name"]: s[part]["dice"] for s in sites if s[part]}
    said = f"The given model ({study.start.sha256[:12]}) was judged and nothing was trained."
    if not dice:
        return f"{said} No site has told a score."
    low, high = min(dice, key=dice.__getitem__), max(dice, key=dice.__getitem__)
    where = f"at {len(dice)} sites" if len(dice) > 1 else f"at {low}"
    spread = f", from {number(dice[low])} at {low} to {number(dice[high])} at {high}" if len(dice) > 1 else ""
    return f"{said} Its mean {part} Dice {where} is {number(fmean(dice.values()))}{spread}."


def render(found: Mapping[str, Any]) -> str:
    """The page as text."""
    style = {METHOD: "fed1"}
    return (
        pages()
        .get_template("run.html.j2")
        .render(
            r=found,
            validation=charts.curves(found, "validation", style),
            loss=charts.curves(found, "loss", style),
            measures=measures(found),
            worst=any(
                t and WORST in t for s in found["sites"] if s["test"] for t in s["test"]["metrics"][DICE].values()
            ),
            tone={"finished": "better", "failed": "worse"}.get(found["status"], "open"),
        )
    )


def _delivery(folder: Path) -> Row:
    """Which sites said that the result has arrived, and when; why others have not, where that is known."""
    delivery = read_delivery(folder)
    sites = delivery.sites if delivery else {}
    return {
        "there": {name: f"{s.time:%Y-%m-%d %H:%M}" for name, s in sites.items() if s.time is not None},
        "due": {name: s.why for name, s in sites.items() if s.time is None},
    }


def _site(name: str, events: Sequence[Event], chosen: int) -> Row:
    """What a site contributed; validation and test are of the chosen round, None where it has no cases or no answer."""
    here = [e for e in events if e.get("site") == name]
    joined = next((e for e in here if e["event"] == "joined"), {})
    trained = [e for e in here if e["event"] == "trained"]
    evaluated = [e for e in here if e["event"] == "evaluated"]
    up, down = sizes(events)
    return {
        "name": name,
        **{k: joined.get(k) for k in ("patients", "train")},
        "rounds": len(trained),
        "failures": sum(e["event"] == "failed" for e in here),
        "validation": _scores(evaluated, "validation", chosen),
        "test": _scores(evaluated, "test", chosen),
        "seconds": sum(e["seconds"] for e in (*trained, *evaluated)),
        "updates": int(sum(e["steps"] for e in trained)),
        "bytes_up": up * len(trained),
        "bytes_down": down * (len(trained) + len(evaluated)),
    }


def _scores(evaluated: Sequence[Event], part: str, of_round: int) -> Row | None:
    """Cases and mean Dice of a site, also by label, and what it told of each metric and label."""
    of = [e for e in evaluated if e["part"] == part and e["round"] == of_round and e["num-examples"] > 0]
    if not of:
        return None
    last = of[-1]
    labels = [k.removeprefix("cases.") for k in last if k.startswith("cases.")]
    metrics = {name: {label: _told(last, name, label) for label in labels} for name in _metrics(last)}
    # A label that no case has, in truth or prediction, has a mean over nothing.
    counted = {label: told["mean"] if told else None for label, told in metrics[DICE].items()}
    return {"cases": int(last["num-examples"]), "dice": last["dice"], "labels": counted, "metrics": metrics}


def _metrics(event: Event) -> list[str]:
    """The metrics that an evaluation tells of, Dice first."""
    told = (k.split(".")[0] for k in event if k.endswith(f".{TOLD}") and k.count(".") == 2)
    return [DICE, *dict.fromkeys(told)]


def _told(event: Event, metric: str, label: str) -> dict[str, float] | None:
    """Mean and spread of one metric and label; None where the site told nothing."""
    if not event[count_key(label)] or not event.get(score_key(metric, label, TOLD), 1):
        return None
    found = {"mean": event[score_key(metric, label)]}
    return found | {w: event[k] for w in (*QUARTILES, WORST) if (k := score_key(metric, label, w)) in event}


def _model(study: Study, state: State, chosen: int) -> Row:
    """What the page says of the model; everything is in its card."""
    return {
        "round": chosen,
        "metric": {
            "name": "mean validation Dice over the sites", "value": state.best_metric if state.best_round else None,
        },
        "net": {**study.net.model_dump(mode="json"), "parameters": net_size(study).parameters},
    }  # fmt: skip


def _write_rounds(path: Path, study: Study, events: Sequence[Event]) -> None:
    """One line per answer of a site: an update, a validation or the final test."""
    labels = list(score_limits(study.metrics(), study.data.labels, study.evaluation.spread))
    head = ["time", "round", "part", "site", "num-examples", "steps", "loss", "dice", *labels, "seconds", "bytes"]
    rows = [{"part": "train", **e} for e in events if e["event"] in ("trained", "evaluated")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, head, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
