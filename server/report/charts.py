"""Geometry of the page's charts: small SVG panels, one per site. Colours and line styles are the page's CSS classes."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from server.report.failures import EVERYONE
from server.report.tables import Scores, is_pooled

WIDTH = 300.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 8.0, 6.0, 20.0
CURVE_HEIGHT = 150.0
STRIP_LANE = 31.0
FAMILY = 4
"""Colours per family of methods; a fifth method of a family starts over."""


@dataclass(frozen=True)
class Tick:
    """A grid line and its number."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """One method in a curve panel: mean over seeds, and the band between the lowest and the highest seed."""

    style: str
    points: str
    band: str
    end: tuple[float, float]


@dataclass(frozen=True)
class CurvePanel:
    """A site's curves; all panels of one kind share their axes."""

    title: str
    lines: list[Line]
    x: list[Tick]
    y: list[Tick]
    width: float = WIDTH
    height: float = CURVE_HEIGHT


@dataclass(frozen=True)
class Lane:
    """One method's cases: `dots` is a path of zero-length strokes, one per case."""

    style: str
    title: str
    at: float
    dots: str
    box: tuple[float, float] | None
    median: float | None


@dataclass(frozen=True)
class StripPanel:
    """A site's test cases, one lane per method; all panels share the Dice axis."""

    title: str
    note: str
    lanes: list[Lane]
    x: list[Tick]
    height: float
    width: float = WIDTH


def styles(scores: Scores) -> dict[str, str]:
    """A CSS class per method: grey for local, blues for federated, oranges for pooled, violets for other baselines."""
    count: dict[str, int] = defaultdict(int)
    found = {}
    for method in scores.methods:
        family = "local" if method == "local" else "pool" if is_pooled(method) else "base"
        family = "fed" if scores.kinds[method] == "federated" else family
        found[method] = family if family == "local" else f"{family}{count[family] % FAMILY + 1}"
        count[family] += 1
    return found


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, in steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-6)
    power = 10 ** math.floor(math.log10(span / about))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def curves(results: Mapping[str, Any], what: str, style: Mapping[str, str]) -> list[CurvePanel]:
    """One panel per site of `what` ("validation" or "loss") over the rounds; empty without values."""
    series = _series(results["curves"], what)
    values = [v for rounds in series.values() for seeds in rounds.values() for v in seeds.values()]
    if not values:
        return []
    grid = ticks(min(values), max(values)) if what == "loss" else ticks(min(values), 1.0)
    rounds = sorted({r for found in series.values() for r in found})
    names = [s["name"] for s in results["sites"]]
    places = sorted({site for site, _ in series}, key=lambda s: (names.index(s) if s in names else len(names), s))
    panels = []
    for place in places:
        lines = [
            _line(series[place, m], style[m], rounds, grid) for m in _drawn_last_first(style) if (place, m) in series
        ]
        title = "all sites together" if place not in names else place
        x = [Tick(_x(r, rounds[0], rounds[-1]), str(r)) for r in sorted({rounds[0], rounds[-1]})]
        panels.append(CurvePanel(title, lines, x, [Tick(_y(v, grid), f"{v:g}") for v in grid]))
    return panels


def strips(scores: Scores, style: Mapping[str, str]) -> list[StripPanel]:
    """One panel per site with every test case of every method."""
    cases = {(s, m): scores.at(m, s) for s in scores.sites for m in scores.methods}
    values = [c.value for found in cases.values() for c in found]
    if not values:
        return []
    grid = ticks(min(values), 1.0)
    panels = []
    for site in scores.sites:
        shown = [m for m in scores.methods if cases[site, m]]
        lanes = [
            _lane(scores.titles[m], style[m], i, [c.value for c in cases[site, m]], grid) for i, m in enumerate(shown)
        ]
        patients = max((len({c.patient for c in cases[site, m]}) for m in shown), default=0)
        note = f"{patients} test patient{'s' if patients != 1 else ''}"
        note += ", took no part in training" if site in scores.unseen else ""
        x = [Tick(_x(v, grid[0], grid[-1], 8.0), f"{v:g}") for v in grid]
        panels.append(StripPanel(site, note, lanes, x, len(lanes) * STRIP_LANE + BOTTOM + TOP))
    return [p for p in panels if p.lanes]


def _series(rows: Iterable[Mapping[str, Any]], what: str) -> dict[tuple[str, str], dict[int, dict[int, float]]]:
    """(site, method) -> round -> seed -> value; a local model counts at its own site only."""
    found: dict[tuple[str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for site, value in (row[what] or {}).items():
            at_home = row["trained_on"] in (EVERYONE, site)
            if at_home and value is not None and math.isfinite(value):
                found[site, row["method"]][row["round"]][row["seed"]] = value
    return found


def _drawn_last_first(style: Mapping[str, str]) -> list[str]:
    """Federated methods last, so that they lie on top."""
    return sorted(style, key=lambda m: style[m].startswith("fed"))


def _line(found: Mapping[int, Mapping[int, float]], style: str, rounds: Sequence[int], grid: Sequence[float]) -> Line:
    points, low, high = [], [], []
    for r in sorted(found):
        x, values = _x(r, rounds[0], rounds[-1]), list(found[r].values())
        points.append((x, _y(fmean(values), grid)))
        low.append((x, _y(min(values), grid)))
        high.append((x, _y(max(values), grid)))
    band = low + high[::-1] if low != high else []
    return Line(style, _text(points), _text(band), points[-1])


def _lane(title: str, style: str, index: int, values: Sequence[float], grid: Sequence[float]) -> Lane:
    middle = TOP + STRIP_LANE * (index + 0.66)
    # Golden-ratio steps spread neighbouring dots without randomness.
    dots = [
        (_x(v, grid[0], grid[-1], 8.0), middle + 9 * ((i * 0.618034) % 1 - 0.5)) for i, v in enumerate(sorted(values))
    ]
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in dots)
    if len(values) < 4:
        return Lane(style, title, middle, path, None, None)
    q1, median, q3 = (_x(float(v), grid[0], grid[-1], 8.0) for v in np.quantile(values, [0.25, 0.5, 0.75]))
    return Lane(style, title, middle, path, (q1, q3), median)


def _x(value: float, low: float, high: float, left: float = LEFT) -> float:
    span = WIDTH - left - RIGHT
    return round(left + span * ((value - low) / (high - low) if high > low else 0.5), 2)


def _y(value: float, grid: Sequence[float]) -> float:
    span = CURVE_HEIGHT - TOP - BOTTOM
    return round(TOP + span * (1 - (value - grid[0]) / (grid[-1] - grid[0])), 2)


def _text(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
