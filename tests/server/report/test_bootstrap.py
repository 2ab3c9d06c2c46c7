"""Intervals against SciPy's percentile bootstrap and against what must hold by symmetry."""

import numpy as np
import pytest
from scipy import stats

from server.report.bootstrap import MIN_PATIENTS, Patients, interval, stratified_interval


def patients(n: int, seed: int = 0, level: float = 0.8) -> Patients:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, n).astype(float)
    return rng.normal(level, 0.1, n) * counts, counts


def test_interval_agrees_with_scipy() -> None:
    sums, counts = patients(25)
    oracle = stats.bootstrap(
        (sums, counts), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(3),
    )  # fmt: skip
    # Quantiles of 2,000 resamples scatter by about 0.06 standard errors.
    assert interval((sums, counts)) == pytest.approx(oracle.confidence_interval, abs=0.2 * oracle.standard_error)


def test_stratified_interval_agrees_with_a_normal_approximation() -> None:
    sites = [patients(n, seed=n, level=0.6 + n / 200) for n in (40, 50, 60)]
    sites = [(s / c, np.ones_like(c)) for s, c in sites]
    low, high = stratified_interval(sites) or (0, 0)
    error = np.sqrt(sum(np.var(s) / len(s) for s, _ in sites)) / 3
    mean = np.mean([s.mean() for s, _ in sites])
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.2 * error)


def test_a_single_site_is_the_plain_interval() -> None:
    assert stratified_interval([patients(12)]) == interval(patients(12))


def test_sites_of_one_patient_are_as_uncertain_as_one_site_of_all() -> None:
    values = np.random.default_rng(5).normal(0.03, 0.05, 9)
    alone = [(np.array([v]), np.ones(1)) for v in values]
    assert stratified_interval(alone) == pytest.approx(interval((values, np.ones(9))))


def test_joined_sites_do_not_mistake_the_level_for_spread() -> None:
    sites = [patients(7, 1), patients(4, 2), patients(1, 3)]
    moved = [(s + 10 * c, c) for s, c in sites]
    low, high = stratified_interval(sites) or (0, 0)
    assert stratified_interval(moved) == pytest.approx((low + 10, high + 10))


def test_too_few_patients_have_no_interval() -> None:
    assert interval(patients(MIN_PATIENTS - 1)) is None
    assert interval(patients(MIN_PATIENTS)) is not None
    assert stratified_interval([patients(2), patients(3)]) is None
    assert stratified_interval([patients(2), patients(4)]) is not None
    assert stratified_interval([]) is None


def test_patients_are_resampled_not_cases() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 10)
    once = interval((values, np.ones(10)))
    many_scans_each = interval((values * 20, np.full(10, 20.0)))
    assert many_scans_each == pytest.approx(once)
