"""Paired tests against the definition: every pattern of signs, counted one by one."""

import itertools
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytest
from scipy import stats

from server.report.measures import measures
from server.report.paired import holm, paired_tests, signed_rank
from server.report.tables import Scores

Make = Callable[..., dict[str, Any]]


def by_enumeration(values: np.ndarray) -> float:
    """Share of the sign patterns whose smaller rank sum is no larger than the one that was found."""
    ranks = stats.rankdata(np.abs(values))

    def smaller(positive: np.ndarray) -> float:
        return min(ranks[positive].sum(), ranks[~positive].sum())

    found = smaller(values > 0)
    patterns = [np.array(p) for p in itertools.product((False, True), repeat=len(values))]
    return float(np.mean([smaller(p) <= found for p in patterns]))


@pytest.mark.parametrize("n", [6, 8, 11])
@pytest.mark.parametrize("shift", [0.0, 0.4, 2.0])
def test_signed_rank_counts_the_patterns_of_signs(n: int, shift: float) -> None:
    values = np.random.default_rng(n).normal(shift, 1, n)
    assert signed_rank(values) == pytest.approx(min(1.0, by_enumeration(values)))


def test_equal_methods_are_equal() -> None:
    assert signed_rank(np.zeros(9)) == 1.0


def test_holm_on_the_numbers_of_a_hand() -> None:
    # 0.01 · 4, 0.02 · 3, 0.022 · 2 raised to the one before, 0.3 · 1.
    assert holm([0.3, 0.01, 0.022, 0.02]) == pytest.approx([0.3, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("metric", [0, 1])
def test_a_patient_counts_once_whatever_its_cases_and_seeds(make_results: Make, metric: int) -> None:
    results = make_results(distances=True)
    scores = Scores(results, measures(results)[metric])
    found = {(t.first, t.second): t for t in paired_tests(scores)}
    assert len(found) == 6 * 5 / 2
    values: dict[str, dict[tuple[str, str], list[float]]] = {"fedavg": {}, "pooled_kt": {}}
    for row in results["cases"]:
        if row["method"] in values and row["site"] in scores.trained:
            numbers = [v for v in row[scores.measure.name].values() if v is not None]
            patient = values[row["method"]].setdefault((row["site"], row["patient"]), [])
            patient.append(sum(numbers) / len(numbers))
    # Every case has equally many labels under all seeds, so that a mean over all is the mean of the means.
    gaps = [np.mean(v) - np.mean(values["pooled_kt"][p]) for p, v in values["fedavg"].items()]
    test = found["fedavg", "pooled_kt"]
    assert test.patients == len(gaps)
    assert test.difference == pytest.approx(median(gaps))
    assert test.p == pytest.approx(float(stats.wilcoxon(gaps).pvalue))
    assert test.p < test.adjusted
    assert test.clear


def test_too_few_patients_are_not_tested(make_results: Make) -> None:
    results = make_results(sites=2, unseen=False)
    results["sites"][0]["use"] = "test"
    assert paired_tests(Scores(results)) == []
