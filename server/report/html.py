"""One HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment

from common.errors import CheckpointError
from common.pages import templates
from server.report import charts, files, sentences
from server.report.bootstrap import MIN_PATIENTS, RESAMPLES
from server.report.comparison import Difference
from server.report.failures import LOCAL
from server.report.fairness import fairness, other_metric, tests
from server.report.measures import measures
from server.report.paired import LEVEL
from server.report.tables import (
    CaseScore,
    Scores,
    case_dice,
    is_pooled,
    winners,
)
from server.report.verdict import Verdict, judge

KEYS = ("study", "versions", "engine", "device", "started", "seconds", "seeds", "labels", "sites", "methods", "cases",
        "curves", "costs", "pictures")  # fmt: skip
FEW_COLUMNS = 8
BESIDE = "hd95"
"""Stands beside Dice in the table of methods and sites."""
PNG = b"\x89PNG\r\n\x1a\n"


def write_report(folder: Path) -> Path:
    """Read `results.json` in `folder`; write `report.html`, `cases.csv`, `summary.csv` and `summary.json` beside it.

    Returns:
        The path of `report.html`.

    Raises:
        CheckpointError: `results.json` is missing or not what a simulation writes.
    """
    results = read_results(folder / "results.json")
    every = [Scores(results, measure) for measure in measures(results)]
    scores = every[0]
    verdict = judge(results, scores)
    files.write_cases(folder / "cases.csv", results)
    files.write_summary(folder / "summary.csv", every)
    files.write_json(folder / "summary.json", every, verdict)
    page = folder / "report.html"
    page.write_text(render(results, folder, every, verdict), encoding="utf-8")
    return page


def read_results(path: Path) -> dict[str, Any]:
    """The content of `results.json`; raises CheckpointError saying what is wrong with the file."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a report needs the folder of a finished simulation") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}); run the simulation again") from None
    if not isinstance(results, dict) or results.get("format") != 1:
        raise CheckpointError(f"{path}: not a results file of format 1; write it with this version of fedscan")
    if missing := [k for k in KEYS if k not in results]:
        raise CheckpointError(f"{path}: {', '.join(missing)} missing; run the simulation again")
    return results


def render(results: Mapping[str, Any], folder: Path, every: Sequence[Scores], verdict: Verdict) -> str:
    """The page as text; `every` are the scores by each metric, Dice first; pictures are read from `folder`."""
    scores = every[0]
    style = charts.styles(scores)
    return (
        pages()
        .get_template("page.html.j2")
        .render(
            r=results,
            v=verdict,
            scores=scores,
            style=style,
            pooled=[m for m in scores.methods if is_pooled(m)],
            key_figures=key_figures(scores, verdict),
            forest=forest(scores, verdict),
            heat=heat(scores),
            beside=next((s for s in every[1:] if s.measure.name == BESIDE), None),
            fairness=fairness(every),
            others=[other_metric(s) for s in every[1:]],
            tests=tests(scores),
            level=LEVEL,
            travel=travel(scores, verdict.federated),
            failed=sentences.failed(scores),
            by_label=by_label(scores),
            detail=detail(scores),
            strips=charts.strips(scores, style),
            validation=charts.curves(results, "validation", style),
            loss=charts.curves(results, "loss", style),
            costs=costs(results),
            failing={f.method for f in scores.failures if f.site is None},
            pictures=[{**p, "data": picture(folder, p["png"])} for p in results["pictures"]],
            uncounted=sum(case_dice(c["dice"]) is None for c in results["cases"]),
            few=MIN_PATIENTS,
            few_columns=FEW_COLUMNS,
            resamples=RESAMPLES,
        )
    )


def pages() -> Environment:
    """The pages and the parts that they share."""
    return templates(
        Path(__file__).parent, number=sentences.number, signed=sentences.signed, size=size, duration=duration
    )


def key_figures(scores: Scores, verdict: Verdict) -> list[dict[str, Any]]:
    """The means that the verdict compares, federation first."""
    if verdict.federated is None or not (verdict.comparisons or scores.judged):
        return []
    # Of the whole group each, not of the cases of one comparison, which a failed rival has fewer of.
    shown = dict.fromkeys([verdict.federated, *(d.second for d in verdict.comparisons)])
    return [
        {"method": m, "title": scores.titles[m], "mean": found.mean if (found := scores.summary(m, None)) else None,
         "incomplete": bool(scores.missing(m, None))}
        for m in shown
    ]  # fmt: skip


def forest(scores: Scores, verdict: Verdict) -> dict[str, Any] | None:
    """Differences to local by site and over the training sites, placed in percent of a common track around 0."""
    overall = [d for d in verdict.comparisons if d.second == LOCAL]
    rows = [*verdict.sites, *overall]
    if not rows:
        return None
    ends = [abs(v) for d in rows for v in (d.summary.mean, d.summary.low, d.summary.high) if v is not None]
    reach = charts.ticks(0, max(*ends, 0.01), about=2)[-1]

    def place(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    absent = [s for s in scores.trained if s not in {d.site for d in rows}]
    return {"reach": reach, "rows": [_forest_row(d, place) for d in rows], "absent": absent}


def _forest_row(d: Difference, place: Callable[[float], float]) -> dict[str, Any]:
    s = d.summary
    bar = None if s.low is None or s.high is None else (place(s.low), round(place(s.high) - place(s.low), 2))
    return {"site": d.site, "sign": d.sign, "s": s, "dot": place(s.mean), "bar": bar, "incomplete": bool(d.incomplete)}


def heat(scores: Scores) -> dict[str, Any]:
    """A row for each training site, their mean, each site that did not train; turned, the page has columns instead."""
    places = [*scores.sites, None]
    means = [s.mean for p in places for m in scores.methods if (s := scores.summary(m, p))]
    span = (min(means, default=0.0), max(means, default=1.0))
    ordered: list[str | None] = [*scores.trained, *([None] if len(scores.trained) > 1 else []), *scores.unseen]
    return {"rows": [_heat_row(scores, place, span) for place in ordered], "turned": len(scores.methods) > FEW_COLUMNS}


def _heat_row(scores: Scores, site: str | None, span: tuple[float, float]) -> dict[str, Any]:
    means = scores.contest(site)
    first = winners(means)
    at_home = winners({m: v for m, v in means.items() if not is_pooled(m)})
    row = {m: scores.summary(m, site) for m in scores.methods}
    cells = {
        m: {
            "s": s,
            "shade": shade(s.mean, span) if s else 0,
            "mark": "best" if m in first else "home" if m in at_home and not set(first) & set(at_home) else "",
            "incomplete": bool(scores.missing(m, site)),
        }
        for m, s in row.items()
    }
    patients = max((s.patients for s in row.values() if s), default=0)
    return {"name": site or f"Mean of {scores.group}", "place": site, "unseen": site in scores.unseen, "cells": cells,
            "patients": patients}  # fmt: skip


def shade(value: float, span: tuple[float, float]) -> float:
    """Opacity of a heat cell's colour."""
    low, high = span
    return round(0.04 + 0.4 * ((value - low) / (high - low) if high > low else 0.5), 3)


def travel(scores: Scores, federated: str | None) -> dict[str, Any] | None:
    """Each local model at each site, and the federated model below; None without local models of several sites."""
    trainers = scores.trainers(LOCAL)
    if len(trainers) < 2:
        return None
    rows = [(t, [_mean(scores.of_model(LOCAL, t, s)) for s in scores.sites]) for t in trainers]
    last = [_mean(scores.at(federated, s)) for s in scores.sites] if federated else []
    values = [v for _, row in [*rows, ("", last)] for v in row if v is not None]
    span = (min(values, default=0.0), max(values, default=1.0))

    failed = {f.trained_on for f in scores.failures if f.method == LOCAL}

    def cells(row: Sequence[float | None]) -> list[dict[str, Any]]:
        return [{"mean": v, "shade": shade(v, span) if v is not None else 0} for v in row]

    return {
        "columns": scores.sites,
        "rows": [{"name": name, "cells": cells(row), "incomplete": name in failed} for name, row in rows],
        "last": {"name": scores.titles[federated], "cells": cells(last)} if federated else None,
    }


def by_label(scores: Scores) -> list[dict[str, Any]]:
    """Per label the mean over the training sites and the worst case, by method; empty for a single label."""
    if len(scores.labels) < 2:
        return []
    rows = []
    for label in scores.labels:
        first = winners(scores.contest(None, label))
        cells = {}
        for m in scores.methods:
            s = scores.summary(m, None, label)
            worst = min((c.value for site in scores.trained for c in scores.at(m, site, label)), default=None)
            cells[m] = {"mean": s.mean if s else None, "worst": worst, "best": m in first,
                        "incomplete": bool(scores.missing(m, None))}  # fmt: skip
        rows.append({"label": label, "cells": cells})
    return rows


def detail(scores: Scores) -> list[dict[str, Any]]:
    """Per label what the cases of each site say about each method; short tables are open from the start."""
    return [
        {
            "label": label,
            "open": len(scores.labels) * len(scores.sites) <= FEW_COLUMNS,
            "rows": [
                {
                    "site": s,
                    "cells": [(scores.summary(m, s, label), bool(scores.missing(m, s))) for m in scores.methods],
                }
                for s in scores.sites
            ],
        }
        for label in scores.labels
    ]


def costs(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per method: sums over its models, mean over the seeds that ended; no bytes where none crossed."""
    table = []
    for method in results["methods"]:
        rows = [c for c in results["costs"] if c["method"] == method["key"]]
        seeds = max(len({c["seed"] for c in rows}), 1)
        line: dict[str, Any] = {"method": method["key"], "title": method["title"]}
        for key in ("seconds", "updates", "bytes_down", "bytes_up"):
            known = [c[key] for c in rows if c[key] is not None]
            line[key] = sum(known) / seeds if known else None
        line |= {key: line[key] or None for key in ("bytes_down", "bytes_up")}
        best = sorted({c["best_round"] for c in rows if c["best_round"] is not None})
        line["best_round"] = f"{best[0]}–{best[-1]}" if len(best) > 1 else str(best[0]) if best else "–"
        table.append(line)
    return table


def picture(folder: Path, name: str) -> str | None:
    """The PNG in base64; None if it is missing, not a PNG, or outside the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    content = path.read_bytes()
    return base64.b64encode(content).decode() if content.startswith(PNG) else None


def size(value: float | None) -> str:
    """Bytes as people say them: `12.3 MB` (powers of 1000)."""
    if value is None:
        return "–"
    power = min(int(math.log10(value) / 3), 4) if value >= 1 else 0
    return f"{value / 1000**power:.{0 if power == 0 else 1}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def duration(seconds: float | None) -> str:
    """`42 s`, `12 min` or `3 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _mean(cases: Sequence[CaseScore]) -> float | None:
    return fmean(c.value for c in cases) if cases else None
