"""Whom a method serves: its worst site, how far sites are apart, its worst case; and what other metrics say of it."""

from collections.abc import Sequence
from statistics import pstdev
from typing import Any

import numpy as np

from server.report.paired import paired_tests
from server.report.tables import Scores, winners


def fairness(every: Sequence[Scores]) -> list[dict[str, Any]]:
    """Per metric and method over the training sites: worst site, range and spread of the sites' means, and the cases.

    The methods whose worst site is best are marked.
    """
    return [{"measure": s.measure, "rows": _rows(s)} for s in every] if len(every[0].trained) > 1 else []


def _rows(scores: Scores) -> list[dict[str, Any]]:
    measure = scores.measure
    rows: list[dict[str, Any]] = []
    for method in scores.methods:
        means = {s: found.mean for s in scores.trained if (found := scores.summary(method, s))}
        values = [c.value for s in scores.trained for c in scores.at(method, s)]
        if not means:
            continue
        worst = max(means, key=lambda s: measure.distance(means[s]))
        q1, median, q3 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
        rows.append({
            "title": scores.titles[method], "method": method, "site": worst, "mean": means[worst],
            "range": max(means.values()) - min(means.values()), "deviation": pstdev(means.values()),
            "q1": q1, "median": median, "q3": q3, "case": measure.worst(values),
            "incomplete": bool(scores.missing(method, None)),
        })  # fmt: skip
    rivals = {m for m, mean in scores.contest(None).items() if mean is not None}
    first = winners({r["method"]: r["mean"] for r in rows if r["method"] in rivals}, measure)
    return [r | {"best": r["method"] in first} for r in rows]


def other_metric(scores: Scores) -> dict[str, Any]:
    """The mean over cases of one metric, methods × sites, and over the training sites; the best of a row is marked."""
    places: list[str | None] = [*scores.trained, *([None] if len(scores.trained) > 1 else []), *scores.unseen]
    rows = []
    for place in places:
        first = winners(scores.contest(place), scores.measure)
        cells = [
            {"s": scores.summary(m, place), "best": m in first, "incomplete": bool(scores.missing(m, place))}
            for m in scores.methods
        ]
        name = f"Mean of {scores.group}" if place is None else place
        rows.append({"name": name, "total": place is None, "unseen": place in scores.unseen, "cells": cells})
    return {"measure": scores.measure, "rows": rows}


def tests(scores: Scores) -> dict[str, Any] | None:
    """The paired tests as a triangle: each method against those before it; None without enough patients."""
    found = {(t.first, t.second): t for t in paired_tests(scores)}
    if not found:
        return None
    shown = [m for m in scores.methods if any(m in pair for pair in found)]
    rows = [
        {"title": scores.titles[m], "cells": [found.get((other, m)) for other in shown[:i]]}
        for i, m in enumerate(shown)
        if i
    ]
    return {"columns": [scores.titles[m] for m in shown[:-1]], "rows": rows, "number": len(found)}
