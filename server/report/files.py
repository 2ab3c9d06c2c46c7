"""The report's numbers for other programs: CSV and JSON, full precision, empty where nothing was measured."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from server.report.comparison import Difference
from server.report.failures import EVERYONE
from server.report.measures import measures
from server.report.paired import paired_tests
from server.report.tables import Scores, winners
from server.report.verdict import Verdict

MEAN = "(mean of training sites)"
SUMMARY_FIELDS = ("metric", "method", "site", "use", "label", "cases", "patients", "mean", "low", "high", "median",
                  "q1", "q3", "worst", "seed_low", "seed_high", "complete", "best")  # fmt: skip


def write_cases(path: Path, results: Mapping[str, Any]) -> None:
    """One line per row of `results["cases"]`, one column `METRIC_LABEL` per metric and label."""
    columns = [(m.name, label) for m in measures(results) for label in results["labels"]]
    head = ["seed", "method", "trained_on", "site", "case", "patient"]
    rows = ([*(r[k] for k in head), *(r.get(m, {}).get(label) for m, label in columns)] for r in results["cases"])
    _write(path, [*head, *(f"{m}_{label}" for m, label in columns)], rows)


def write_summary(path: Path, every: Sequence[Scores]) -> None:
    """One line per metric, method, site and label, and for each but the site one for the mean of the training sites."""
    lines = [line for scores in every for line in summary_rows(scores)]
    _write(path, SUMMARY_FIELDS, ([line[k] for k in SUMMARY_FIELDS] for line in lines))


def write_json(path: Path, every: Sequence[Scores], verdict: Verdict) -> None:
    """The summary lines, the comparisons, the paired tests and the verdict's words."""
    scores = every[0]
    content = {
        "format": 1,
        "headline": verdict.headline,
        "tone": verdict.tone,
        "sentences": verdict.sentences,
        "comparisons": [_comparison(d) for d in (*verdict.comparisons, *verdict.sites)],
        "failures": [asdict(f) for f in scores.failures],
        "tests": [{"metric": s.measure.name, **asdict(t)} for s in every for t in paired_tests(s)],
        "summary": [line for s in every for line in summary_rows(s)],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def summary_rows(scores: Scores) -> list[dict[str, Any]]:
    """The lines of `summary.csv`.

    `label` is one of the labels, or "all": then a case's value is the mean over its labels. `complete` is false where
    something failed, so that the numbers rest on fewer sites, seeds or models; `best` says whether the method has the
    best mean of those that are complete.
    """
    places = [*((s, s, "test" if s in scores.unseen else "train") for s in scores.sites), (None, MEAN, "train")]
    rows = []
    for site, name, use in places:
        for label in (None, *scores.labels):
            first = winners(scores.contest(site, label), scores.measure)
            for method in scores.methods:
                if s := scores.summary(method, site, label):
                    low, high = s.spread or (None, None)
                    numbers = {k: v for k, v in asdict(s).items() if k != "seeds"}
                    rows.append({"metric": scores.measure.name, "method": method, "site": name, "use": use,
                                 "label": label or EVERYONE, **numbers,
                                 "seed_low": low, "seed_high": high, "complete": not scores.missing(method, site),
                                 "best": method in first})  # fmt: skip
    return rows


def _comparison(d: Difference) -> dict[str, Any]:
    s = d.summary
    return {"first": d.first, "second": d.second, "site": d.site, "first_mean": d.means[0], "second_mean": d.means[1],
            "difference": s.mean, "low": s.low, "high": s.high, "patients": s.patients, "sign": d.sign,
            "seeds": s.seeds, "incomplete": d.incomplete}  # fmt: skip


def _write(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
