"""From the rows of a simulation to numbers: what each method reached at each site, and how sure that is.

A case's score is the mean Dice over its labels; a label that is absent in truth and prediction is not counted. With
several seeds a case's value is the mean over the seeds, so that repeating the training never looks like more patients.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from server.report.bootstrap import Patients, interval, stratified_interval

Row = Mapping[str, Any]
EVERYONE = "all"


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
    """Mean over the labels that count, or the Dice of `label`; None if nothing counts."""
    values = [d for name, d in dice.items() if label in (None, name) and d is not None and math.isfinite(d)]
    return fmean(values) if values else None


class Scores:
    """The case rows of a simulation, found by method and site.

    Args:
        results: The content of `results.json`.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.methods: list[str] = [m["key"] for m in results["methods"]]
        self.titles: dict[str, str] = {m["key"]: m["title"] for m in results["methods"]}
        self.kinds: dict[str, str] = {m["key"]: m["kind"] for m in results["methods"]}
        self.trained: list[str] = [s["name"] for s in results["sites"] if s["use"] != "test"]
        self.unseen: list[str] = [s["name"] for s in results["sites"] if s["use"] == "test"]
        self.labels: list[str] = list(results["labels"])
        self.seeds: list[int] = list(results["seeds"])
        self._found: dict[tuple[str, str, str | None], list[CaseScore]] = {}
        self._rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in (r for r in results["cases"] if r["method"] in self.titles):
            self._rows[row["method"], row["site"]].append(row)

    @property
    def sites(self) -> list[str]:
        """All sites, those that trained first."""
        return self.trained + self.unseen

    def at(self, method: str, site: str, label: str | None = None) -> list[CaseScore]:
        """The method's own scores at `site`.

        Models of single sites are judged at home by the site's own model; a site that did not train has none, so
        there each case gets the mean over the models of all other sites.
        """
        key = (method, site, label)
        if key not in self._found:
            rows = self._rows.get((method, site), [])
            own = [r for r in rows if r["trained_on"] in (site, EVERYONE)]
            self._found[key] = case_scores(own or (rows if site in self.unseen else []), label)
        return self._found[key]

    def of_model(self, method: str, trained_on: str, site: str) -> list[CaseScore]:
        """The scores at `site` of the model trained on `trained_on`."""
        return case_scores(r for r in self._rows.get((method, site), []) if r["trained_on"] == trained_on)

    def trainers(self, method: str) -> list[str]:
        """The single sites whose models `method` has, in the order of the sites."""
        names = {r["trained_on"] for (m, _), rows in self._rows.items() if m == method for r in rows}
        return [s for s in self.sites if s in names]


def case_scores(rows: Iterable[Row], label: str | None = None) -> list[CaseScore]:
    """One score per case, ordered by name; several models' rows of one case and seed are averaged."""
    values: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        value = case_dice(row["dice"], label)
        if value is not None:
            values[row["site"], row["case"], row["patient"]][row["seed"]].append(value)
    return [
        CaseScore(*key, {seed: fmean(v) for seed, v in sorted(by_seed.items())})
        for key, by_seed in sorted(values.items())
    ]


def paired(first: Sequence[CaseScore], second: Sequence[CaseScore]) -> list[CaseScore]:
    """`first` minus `second`, case by case and seed by seed, where both count."""
    other = {(c.site, c.case): c.by_seed for c in second}
    pairs = []
    for c in first:
        against = other.get((c.site, c.case), {})
        both = {seed: v - against[seed] for seed, v in c.by_seed.items() if seed in against}
        if both:
            pairs.append(CaseScore(c.site, c.case, c.patient, both))
    return pairs


def by_patient(cases: Iterable[CaseScore]) -> Patients:
    """Per patient the sum of the case values and the number of cases, both `(P,)`."""
    sums: dict[str, list[float]] = defaultdict(list)
    for c in cases:
        sums[c.patient].append(c.value)
    ordered = [sums[p] for p in sorted(sums)]
    return np.array([sum(v) for v in ordered], dtype=float), np.array([len(v) for v in ordered], dtype=float)


def summarise(cases: Sequence[CaseScore]) -> Summary | None:
    """Mean, quartiles, worst case and interval over the cases of one site; None without cases."""
    if not cases:
        return None
    values = np.array([c.value for c in cases])
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    patients = by_patient(cases)
    low, high = interval(patients) or (None, None)
    return Summary(len(cases), len(patients[0]), float(values.mean()), float(median), float(q1), float(q3),
                   float(values.min()), low, high, seed_means(cases))  # fmt: skip


def summarise_sites(sites: Sequence[Sequence[CaseScore]]) -> Summary | None:
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
                   float(means.min()), low, high, seeds)  # fmt: skip


def seed_means(cases: Iterable[CaseScore]) -> dict[int, float]:
    """The mean over cases under each seed."""
    values: dict[int, list[float]] = defaultdict(list)
    for c in cases:
        for seed, value in c.by_seed.items():
            values[seed].append(value)
    return {seed: fmean(values[seed]) for seed in sorted(values)}


def winners(means: Mapping[str, float | None]) -> list[str]:
    """The methods with the highest mean, compared as shown: equal to three decimals is a shared first place."""
    shown = {m: round(v, 3) for m, v in means.items() if v is not None}
    return [m for m, v in shown.items() if v == max(shown.values())]


def is_pooled(method: str) -> bool:
    """Whether `method` needs all scans in one place, so that no hospital could choose it."""
    return method.startswith("pooled")
