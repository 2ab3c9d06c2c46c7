"""The report's numbers for other programs: CSV and JSON, full precision, empty where nothing was measured."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from server.report.comparison import Difference
from server.report.failures import EVERYONE
from server.report.tables import Scores, winners
from server.report.verdict import Verdict

MEAN = "(mean of training sites)"
SUMMARY_FIELDS = ("method", "site", "use", "label", "cases", "patients", "mean", "low", "high", "median", "q1", "q3",
                  "worst", "seed_low", "seed_high", "complete", "best")  # fmt: skip


def write_cases(path: Path, results: Mapping[str, Any]) -> None:
    """One line per row of `results["cases"]`, one column `dice_LABEL` per label."""
    labels = results["labels"]
    head = ["seed", "method", "trained_on", "site", "case", "patient"]
    rows = ([*(r[k] for k in head), *(r["dice"].get(label) for label in labels)] for r in results["cases"])
    _write(path, [*head, *(f"dice_{label}" for label in labels)], rows)


def write_summary(path: Path, scores: Scores) -> None:
    """One line per method, site and label, and per method and label one for the mean of the training sites."""
    lines = summary_rows(scores)
    _write(path, SUMMARY_FIELDS, ([line[k] for k in SUMMARY_FIELDS] for line in lines))


def write_json(path: Path, scores: Scores, verdict: Verdict) -> None:
    """The summary lines, the comparisons and the verdict's words."""
    content = {
        "format": 1,
        "headline": verdict.headline,
        "tone": verdict.tone,
        "sentences": verdict.sentences,
        "comparisons": [_comparison(d) for d in (*verdict.comparisons, *verdict.sites)],
        "failures": [asdict(f) for f in scores.failures],
        "summary": summary_rows(scores),
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def summary_rows(scores: Scores) -> list[dict[str, Any]]:
    """The lines of `summary.csv`.

    `label` is one of the labels, or "all": then a case's value is the mean over its labels. `complete` is false where
    something failed, so that the numbers rest on fewer sites, seeds or models; `best` says whether the method has the
    highest mean of those that are complete.
    """
    places = [*((s, s, "test" if s in scores.unseen else "train") for s in scores.sites), (None, MEAN, "train")]
    rows = []
    for site, name, use in places:
        for label in (None, *scores.labels):
            first = winners(scores.contest(site, label))
            for method in scores.methods:
                if s := scores.summary(method, site, label):
                    low, high = s.spread or (None, None)
                    numbers = {k: v for k, v in asdict(s).items() if k != "seeds"}
                    rows.append({"method": method, "site": name, "use": use, "label": label or EVERYONE, **numbers,
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
