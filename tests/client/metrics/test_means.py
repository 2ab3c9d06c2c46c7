"""Means and quantiles of what cases scored."""

import math

import numpy as np
import pytest
from scipy import stats

from client.metrics.means import mean, quantiles


def test_mean_leaves_nan_out_and_says_how_many() -> None:
    assert mean([0.5, math.nan, 1.0, 0.0]) == (0.5, 3)
    assert mean([math.nan])[1] == 0
    assert math.isnan(mean([])[0])


@pytest.mark.parametrize("n", [2, 5, 8, 31])
def test_quantiles_are_those_of_harrell_and_davis(n: int) -> None:
    """The weight of the i-th smallest value is the beta distribution's mass between (i − 1)/n and i/n."""
    values = np.random.default_rng(n).random(n)
    for share, found in zip((0.25, 0.5, 0.75), quantiles(values, (0.25, 0.5, 0.75)), strict=True):
        edges = stats.beta(share * (n + 1), (1 - share) * (n + 1)).cdf(np.arange(n + 1) / n)
        assert found == pytest.approx(np.diff(edges) @ np.sort(values))


def test_quantiles_give_no_case_away_and_leave_nan_out() -> None:
    values = [0.2, 0.31, 0.5, 0.77, 0.9]
    found = quantiles([*values, math.nan], (0.25, 0.5, 0.75))
    assert not set(found) & set(values)
    assert found == sorted(found)
    assert min(values) < found[0] < found[2] < max(values)
    assert quantiles([0.4], (0.25, 0.5)) == [0.4, 0.4]
    assert all(math.isnan(v) for v in quantiles([math.nan], (0.25, 0.5)))
