"""Percentile bootstrap intervals over patients.

Patients are drawn, not cases: two scans of one patient are not two independent pieces of evidence (cluster
bootstrap). Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 (percentile interval) and 8
(more complicated data structures).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 20_231

# With 5 patients even a sign test on 5 equal signs does not reach the 5 % level (2 · 0.5^5 = 0.0625); with 6 it does.
MIN_PATIENTS = 6

Values = NDArray[np.float64]
Patients = tuple[Values, Values]
"""Per patient: the sum of the case values, and the number of cases."""


def interval(patients: Patients) -> tuple[float, float] | None:
    """The 95 % interval of the mean over cases, patients resampled; None for fewer than `MIN_PATIENTS`.

    Args:
        patients: Sums and case counts, both `(P,)`.
    """
    if len(patients[0]) < MIN_PATIENTS:
        return None
    sums, counts = patients
    times = _first_draw(len(sums))
    return _percentiles((times @ sums) / (times @ counts))


def stratified_interval(sites: Sequence[Patients]) -> tuple[float, float] | None:
    """The 95 % interval of the mean over sites of their means over cases; None if all have too few patients together.

    Patients are resampled within their site. Resampling within a very small site would make its mean look certain
    (with one patient: no spread at all), so the smallest sites are joined until a stratum has `MIN_PATIENTS`
    patients, which errs on the wide side (collapsed strata; Cochran, Sampling Techniques, 1977, chapter 5A).
    """
    if sum(len(sums) for sums, _ in sites) < MIN_PATIENTS:
        return None
    rng = np.random.default_rng(SEED)
    total = np.zeros(RESAMPLES)
    for stratum in _strata(sites):
        if len(stratum) == 1:
            total += _resampled_means(stratum[0], rng)
        else:
            total += _resampled_sum(stratum, rng)
    return _percentiles(total / len(sites))


def _strata(sites: Sequence[Patients]) -> list[list[Patients]]:
    """The sites in groups of at least `MIN_PATIENTS` patients, the smallest joined first."""
    strata: list[list[Patients]] = []
    for site in sorted(sites, key=lambda s: len(s[0])):
        if strata and sum(len(s[0]) for s in strata[-1]) < MIN_PATIENTS:
            strata[-1].append(site)
        else:
            strata.append([site])
    if len(strata) > 1 and sum(len(s[0]) for s in strata[-1]) < MIN_PATIENTS:
        last = strata.pop()
        strata[-1].extend(last)
    return strata


def _resampled_sum(stratum: Sequence[Patients], rng: np.random.Generator) -> Values:
    """`(RESAMPLES,)` sums of the joined sites' means.

    A patient carries its site's weight and its distance from the mean of the joined sites, so that differences between
    these sites count as spread, but the common level (unequal weights times that level) does not.
    """
    means = [sums.sum() / counts.sum() for sums, counts in stratum]
    level = float(np.mean(means))
    distance = np.concatenate([(sums - level * counts) / counts.sum() for sums, counts in stratum])
    totals: Values = float(sum(means)) + len(distance) * _resampled_means((distance, np.ones_like(distance)), rng)
    return totals


def _resampled_means(patients: Patients, rng: np.random.Generator) -> Values:
    """`(RESAMPLES,)` means over cases of as many patients as there are, drawn with replacement."""
    sums, counts = patients
    times = _draw(len(sums), rng)
    means: Values = (times @ sums) / (times @ counts)
    return means


@lru_cache(maxsize=4)
def _first_draw(n: int) -> Values:
    """`_draw` from the start of the stream; kept, because a site's methods and labels have the same patients."""
    return _draw(n, np.random.default_rng(SEED))


def _draw(n: int, rng: np.random.Generator) -> Values:
    """`(RESAMPLES, n)` how often each of `n` patients is drawn when `n` are drawn with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def _percentiles(means: Values) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
