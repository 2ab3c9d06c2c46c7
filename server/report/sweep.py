"""The report of a sweep: every trial on validation cases, and the chosen one on test cases."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from server.report.comparison import compare
from server.report.html import pages
from server.report.measures import measures
from server.report.tables import Scores

Row = dict[str, Any]
FIELDS = ("rank", "trial", "validation", "low_seed", "high_seed", "behind", "behind_low", "behind_high", "worst_site",
          "seconds", "updates", "bytes_up", "chosen", "digest")  # fmt: skip


def choose_trial(results: Mapping[str, Any]) -> str | None:
    """Key of the trial with the highest mean validation Dice over all seeds; None if none ended under all of them.

    It is the value by which each run chose its round: the mean over sites. Of equal ones the first stays.
    """
    means = _validation(results)
    return max(means, key=lambda key: fmean(means[key].values())) if means else None


def write_sweep(folder: Path) -> Path:
    """Read `sweep.json` in `folder`; write `sweep.html` and `sweep.csv` beside it; returns the page's path."""
    results = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    rows = table(results)
    with (folder / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    page = folder / "sweep.html"
    page.write_text(render(results, rows), encoding="utf-8")
    return page


def table(results: Mapping[str, Any]) -> list[Row]:
    """One row per trial, best first; those that failed under some seed last.

    `behind` is how much lower its Dice is than the chosen one's on the same validation cases, with a 95 % interval.
    """
    every = [Scores(results, measure) for measure in measures(results)]
    scores, means, best = every[0], _validation(results), choose_trial(results)
    rows = []
    for method in results["methods"]:
        key, values = method["key"], list(means.get(method["key"], {}).values())
        costs = [c for c in results["costs"] if c["method"] == key]
        gap = compare(scores, best, key) if best and best != key else None
        sites = {s: found.mean for s in scores.trained if (found := scores.summary(key, s))}
        rows.append({
            "trial": method["title"], "digest": method["digest"], "chosen": key == best,
            "validation": fmean(values) if values else None,
            "low_seed": min(values, default=None), "high_seed": max(values, default=None),
            "behind": gap.summary.mean if gap else None, "behind_low": gap.summary.low if gap else None,
            "behind_high": gap.summary.high if gap else None, "clear": bool(gap and gap.sign == "better"),
            "sites": sites, "worst_site": min(sites.values(), default=None),
            "others": [s.summary(key, None) for s in every[1:]],
            **{k: sum(c[k] for c in costs) / len(costs) if costs else None for k in ("seconds", "updates", "bytes_up")},
            "failures": [f.why for f in scores.failures if f.method == key and f.site is None],
        })  # fmt: skip
    rows.sort(key=lambda r: -1 if r["validation"] is None else r["validation"], reverse=True)
    return [{"rank": i if r["validation"] is not None else None, **r} for i, r in enumerate(rows, start=1)]


def render(results: Mapping[str, Any], rows: list[Row]) -> str:
    """The page as text."""
    shown = measures(results)
    test = {**results, **{k: results["test"][k] for k in ("cases", "sites")}, "failures": []}
    tested = [Scores(test, measure) for measure in shown]
    return (
        pages()
        .get_template("sweep.html.j2")
        .render(r=results, rows=rows, measures=shown, tested=tested, key=results["test"]["method"])
    )


def _validation(results: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Key of each trial that ended with a validation under all seeds -> seed -> validation Dice."""
    found: dict[str, dict[int, float]] = {}
    for row in results["costs"]:
        if row["validation"] is not None:
            found.setdefault(row["method"], {})[row["seed"]] = row["validation"]
    return {key: values for key, values in found.items() if set(values) == set(results["seeds"])}
