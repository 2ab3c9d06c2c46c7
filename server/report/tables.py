"""From the rows of a simulation to numbers: what each method reached at each site, and how sure that is.

A case's score is the mean Dice (or another metric) over its labels; a label that is absent in truth and prediction is
not counted. With several seeds a case's value is the mean over the seeds, so that repeating the training never looks
like more patients.

Two methods are compared on the same cases, seeds and labels (`aligned`): there, a method that rightly leaves an absent
label out gets Dice 1 for it where the other one drew it and gets 0.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from server.report.bootstrap import Patients, interval, stratified_interval
from server.report.failures import EVERYONE, PROBE, Failure, find_failures
from server.report.measures import DICE, Measure

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CaseScore:
    """One test case under one method (or the difference of two methods).

    Attributes:
        by_seed: The value under each seed in which it counts.
    """

    site: str
    case: str
    patient: str
    by_seed: Mapping[int, float]

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return fmean(self.by_seed.values())


@dataclass(frozen=True)
class Summary:
    """What the cases of one site (or the sites of one study) say about a method.

    Attributes:
        low, high: 95 % interval of the mean; None where there are too few patients.
        seeds: The mean under each seed.
    """

    cases: int
    patients: int
    mean: float
    median: float
    q1: float
    q3: float
    worst: float
    low: float | None
    high: float | None
    seeds: Mapping[int, float]

    @property
    def spread(self) -> tuple[float, float] | None:
        """Smallest and largest mean over the seeds; None with one seed."""
        return (min(self.seeds.values()), max(self.seeds.values())) if len(self.seeds) > 1 else None


def case_dice(dice: Mapping[str, float | None], label: str | None = None) -> float | None:
    """Mean over the labels that count, or the value of `label`; None if nothing counts."""
    values = [d for name, d in dice.items() if label in (None, name) and d is not None and math.isfinite(d)]
    return fmean(values) if values else None


class Scores:
    """The case rows of a simulation, found by method and site.

    Args:
        results: The content of `results.json`.
        measure: What the scores are of.
    """

    def __init__(self, results: Mapping[str, Any], measure: Measure = DICE) -> None:
        self.measure = measure
        self.methods: list[str] = [m["key"] for m in results["methods"]]
        self.titles: dict[str, str] = {m["key"]: m["title"] for m in results["methods"]}
        self.kinds: dict[str, str] = {m["key"]: m["kind"] for m in results["methods"]}
        self.trained: list[str] = [s["name"] for s in results["sites"] if s["use"] != "test"]
        self.unseen: list[str] = [s["name"] for s in results["sites"] if s["use"] == "test"]
        self.judged = bool(results.get("judged"))  # nothing was trained: one given model
        self.labels: list[str] = list(results["labels"])
        self.seeds: list[int] = list(results["seeds"])
        self.failures: list[Failure] = find_failures(results)
        self._found: dict[tuple[str, str, str | None], list[CaseScore]] = {}
        self._summaries: dict[tuple[str, str | None, str | None], Summary | None] = {}
        self._rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in (r for r in results["cases"] if r["method"] in self.titles):
            self._rows[row["method"], row["site"]].append(row)

    @property
    def sites(self) -> list[str]:
        """All sites, those that trained first."""
        return self.trained + self.unseen

    @property
    def group(self) -> str:
        """What the sites are called over which means are taken."""
        return "all sites" if self.judged else "training sites"

    def rows(self, method: str, site: str) -> list[Row]:
        """The rows by which the method is judged at `site`.

        Models of single sites are judged at home by the site's own model; a site that did not train has none, so
        there each case gets the mean over the models of all other sites.
        """
        rows = self._rows.get((method, site), [])
        own = [r for r in rows if r["trained_on"] in (site, EVERYONE)]
        return own or (rows if site in self.unseen else [])

    def rows_of_visitors(self, method: str, site: str) -> list[Row]:
        """The rows at `site` of the models that single other sites trained: how they fare away from home."""
        return [r for r in self._rows.get((method, site), []) if r["trained_on"] not in (site, EVERYONE)]

    def at(self, method: str, site: str, label: str | None = None) -> list[CaseScore]:
        """The method's own scores at `site`."""
        key = (method, site, label)
        if key not in self._found:
            self._found[key] = case_scores(self.rows(method, site), label, self.measure)
        return self._found[key]

    def summary(self, method: str, site: str | None, label: str | None = None) -> Summary | None:
        """What `at` says at `site`, or over the training sites if that is None; None without scores."""
        key = (method, site, label)
        if key not in self._summaries:
            self._summaries[key] = (
                summarise_sites([self.at(method, s, label) for s in self.trained], self.measure)
                if site is None
                else summarise(self.at(method, site, label), self.measure)
            )
        return self._summaries[key]

    def missing(self, method: str, site: str | None) -> list[Failure]:
        """The failures that `summary(method, site)` suffers from: it rests on fewer sites, seeds or models, or none."""
        if site is None:
            found = [f for s in self.trained for f in self.missing(method, s)]
            return list(dict.fromkeys(found))
        return [
            f
            for f in self.failures
            if f.method == method
            and f.site in (None, site)
            and (f.trained_on in (EVERYONE, site) or site in self.unseen)
        ]

    def missing_visitors(self, method: str, site: str) -> list[Failure]:
        """The failures that `rows_of_visitors(method, site)` suffers from: of other sites' models."""
        return [f for f in self.failures if f.method == method and f.site in (None, site) and f.trained_on != site]

    def tested(self, method: str, trained_on: str, seeds: Iterable[int]) -> bool:
        """Whether there are test cases of this model under any of these seeds."""
        found = (r for (m, _), rows in self._rows.items() if m == method for r in rows)
        return any(r["trained_on"] == trained_on and r["seed"] in seeds for r in found)

    def contest(self, site: str | None, label: str | None = None) -> dict[str, float | None]:
        """The means that compete at `site` (None: over the training sites); an incomplete mean does not."""
        found = {m: self.summary(m, site, label) for m in self.methods}
        rivals = {
            m
            for m, s in found.items()
            if s and not self.judged and self.kinds[m] != PROBE and not self.missing(m, site)
        }
        return {m: s.mean if s and m in rivals else None for m, s in found.items()}

    def of_model(self, method: str, trained_on: str, site: str) -> list[CaseScore]:
        """The scores at `site` of the model trained on `trained_on`."""
        rows = [r for r in self._rows.get((method, site), []) if r["trained_on"] == trained_on]
        return case_scores(rows, measure=self.measure)

    def trainers(self, method: str) -> list[str]:
        """The single sites whose models `method` has, in the order of the sites."""
        names = {r["trained_on"] for (m, _), rows in self._rows.items() if m == method for r in rows}
        return [s for s in self.sites if s in names]


def case_scores(rows: Iterable[Row], label: str | None = None, measure: Measure = DICE) -> list[CaseScore]:
    """One score per case, ordered by name; several models' rows of one case and seed are averaged."""
    values: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        value = case_dice(row.get(measure.name, {}), label)
        if value is not None:
            values[row["site"], row["case"], row["patient"]][row["seed"]].append(value)
    return [
        CaseScore(*key, {seed: fmean(v) for seed, v in sorted(by_seed.items())})
        for key, by_seed in sorted(values.items())
    ]


def aligned(
    first: Iterable[Row], second: Iterable[Row], measure: Measure = DICE
) -> tuple[list[CaseScore], list[CaseScore]]:
    """Two methods' scores over the same cases, seeds and labels, in the same order.

    A label counts in a case if either method has a value for it, under any seed. Where one has none, truth and
    prediction are both without the label, which is right: it gets the ideal, of Dice 1. Leaving the case out instead
    would hide just those in which the other method drew what is not there. A label of which Dice has a value and
    `measure` has none, as the precision of a mask that is empty where it should not be, is left out for both.
    """
    ours, theirs = _by_case(first, measure), _by_case(second, measure)
    pairs: tuple[list[CaseScore], list[CaseScore]] = ([], [])
    for key in sorted(ours.keys() & theirs.keys()):
        seeds = sorted(ours[key].keys() & theirs[key].keys())
        both = [dice for side in (ours, theirs) for seed in seeds for dice in side[key][seed]]
        labels = [
            name
            for name in dict.fromkeys(n for d in both for n in d)
            if any(_counts(d.get(name)) for d in both) and not any(_undefined(d.get(name)) for d in both)
        ]
        if not labels:
            continue
        for scores, side in zip(pairs, (ours, theirs), strict=True):
            found = {s: [_or(measure.ideal, d.get(name)) for d in side[key][s] for name in labels] for s in seeds}
            values = {s: fmean(v) for s, v in found.items()}
            scores.append(CaseScore(*key, values))
    return pairs


def differences(first: Sequence[CaseScore], second: Sequence[CaseScore]) -> list[CaseScore]:
    """`first` minus `second`, of scores that are `aligned`."""
    return [
        CaseScore(a.site, a.case, a.patient, {seed: v - b.by_seed[seed] for seed, v in a.by_seed.items()})
        for a, b in zip(first, second, strict=True)
    ]


def _by_case(
    rows: Iterable[Row], measure: Measure
) -> dict[tuple[str, str, str], dict[int, list[Mapping[str, float | None]]]]:
    """(site, case, patient) -> seed -> values by label, of each model; NaN where only Dice has one."""
    found: dict[tuple[str, str, str], dict[int, list[Mapping[str, float | None]]]] = {}
    for r in rows:
        dice = r["dice"]
        values = {
            name: math.nan if value is None and dice.get(name) is not None else value
            for name, value in r.get(measure.name, {}).items()
        }
        found.setdefault((r["site"], r["case"], r["patient"]), {}).setdefault(r["seed"], []).append(values)
    return found


def _counts(dice: float | None) -> bool:
    return dice is not None and math.isfinite(dice)


def _undefined(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def _or(ideal: float, value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else ideal


def by_patient(cases: Iterable[CaseScore]) -> Patients:
    """Per patient the sum of the case values and the number of cases, both `(P,)`."""
    sums: dict[str, list[float]] = defaultdict(list)
    for c in cases:
        sums[c.patient].append(c.value)
    ordered = [sums[p] for p in sorted(sums)]
    return np.array([sum(v) for v in ordered], dtype=float), np.array([len(v) for v in ordered], dtype=float)


def summarise(cases: Sequence[CaseScore], measure: Measure = DICE) -> Summary | None:
    """Mean, quartiles, worst case and interval over the cases of one site; None without cases."""
    if not cases:
        return None
    values = np.array([c.value for c in cases])
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    patients = by_patient(cases)
    low, high = interval(patients) or (None, None)
    return Summary(len(cases), len(patients[0]), float(values.mean()), float(median), float(q1), float(q3),
                   float(measure.worst(values)), low, high, seed_means(cases))  # fmt: skip


def summarise_sites(sites: Sequence[Sequence[CaseScore]], measure: Measure = DICE) -> Summary | None:
    """The mean over the sites' means, every site weighing the same; quartiles and worst are of the sites' means."""
    sites = [s for s in sites if s]
    if not sites:
        return None
    means = np.array([fmean(c.value for c in s) for s in sites])
    q1, median, q3 = np.quantile(means, [0.25, 0.5, 0.75])
    low, high = stratified_interval([by_patient(s) for s in sites]) or (None, None)
    per_site = [seed_means(s) for s in sites]
    # A seed that a site lacks would shift the mean of that seed: only seeds that all sites have are compared.
    common = set.intersection(*(set(p) for p in per_site))
    seeds = {seed: fmean(p[seed] for p in per_site) for seed in sorted(common)}
    patients = sum(len({c.patient for c in s}) for s in sites)
    return Summary(sum(map(len, sites)), patients, float(means.mean()), float(median), float(q1), float(q3),
                   float(measure.worst(means)), low, high, seeds)  # fmt: skip


def seed_means(cases: Iterable[CaseScore]) -> dict[int, float]:
    """The mean over cases under each seed."""
    values: dict[int, list[float]] = defaultdict(list)
    for c in cases:
        for seed, value in c.by_seed.items():
            values[seed].append(value)
    return {seed: fmean(values[seed]) for seed in sorted(values)}


def winners(means: Mapping[str, float | None], measure: Measure = DICE) -> list[str]:
    """The methods with the best mean, compared as shown: equal to the last decimal is a shared first place."""
    shown = {m: measure.distance(round(v, measure.digits)) for m, v in means.items() if v is not None}
    return [m for m, v in shown.items() if v == min(shown.values())]


def is_pooled(method: str) -> bool:
    """Whether `method` needs all scans in one place, so that no hospital could choose it."""
    return method.startswith("pooled")
