"""Generalisation adjustment, by hand."""

import numpy as np
import pytest

from server.strategies.feddg_ga import adjusted


def test_shares_move_by_the_step_towards_the_largest_gap() -> None:
    """Gaps 0.1, 0.3, 0.2: centred −0.1, 0.1, 0, so one step down, one up, and none."""
    moved = adjusted(np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.3, 0.2]), 0.05)
    np.testing.assert_allclose(moved, [0.15, 0.55, 0.3])


def test_shares_stay_within_bounds_and_sum_to_one() -> None:
    moved = adjusted(np.array([0.01, 0.99]), np.array([0.0, 1.0]), 0.1)
    np.testing.assert_allclose(moved, [0, 1])
    np.testing.assert_array_equal(adjusted(np.array([0.4, 0.6]), np.array([1.0, 1.0]), 0.1), [0.4, 0.6])
    np.testing.assert_array_equal(adjusted(np.array([0.4, 0.6]), np.array([np.nan, 1.0]), 0.1), [0.4, 0.6])


def losses(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"steps": 1.0, "loss-received": received, "loss-trained": trained} for received, trained in pairs]


def test_rounds_by_hand(sites, strategy) -> None:
    """Round 1 knows no gap: a mean by weights. Round 2: gaps 0.9 − 0.2 and 0.4 − 0.3, so d_2/K up and down."""
    run, by = sites(1), strategy("feddg_ga", step=0.2)
    assert run.fold(by, [0.0], [[1.0], [5.0]], [1, 3], losses((1.0, 0.2), (1.0, 0.3))).tolist() == [4.0]
    step = 0.2 * (1 - 1 / 10) / 2
    second = run.fold(by, [0.0], [[1.0], [5.0]], [1, 3], losses((0.9, 0.1), (0.4, 0.2)))
    assert second[0] == pytest.approx((0.25 + step) * 1 + (0.75 - step) * 5)


def test_a_site_that_was_away_keeps_its_share_and_a_new_one_begins_at_the_mean(sites, strategy) -> None:
    run, by = sites(1), strategy("feddg_ga", step=0.2)
    run.fold(by, [0.0], [[1.0], [5.0], [9.0]], [1, 1, 2], losses((1, 0.2), (1, 0.3), (1, 0.1)))
    run.fold(by, [0.0], [[1.0]], [1], losses((0.5, 0.2)))
    assert [float(run.memory["shares"][f"site-{i}"][0]) for i in range(3)] == pytest.approx([0.25, 0.25, 0.5])
    assert list(run.memory["trained"]) == ["site-0"], "the gap of who comes back is not known"
    run.memory["shares"] = {"site-0": np.array([0.2]), "site-1": np.array([0.6])}
    run.memory["trained"] = {}
    result = run.fold(by, [0.0], [[0.0], [0.0], [6.0]], [1, 1, 1], losses((1, 1), (1, 1), (1, 1)))
    assert result[0] == pytest.approx(6 * 0.4 / 1.2)


def test_who_lost_all_say_is_heard_where_nobody_else_answers(sites, strategy) -> None:
    run, by = sites(1), strategy("feddg_ga")
    run.memory |= {"shares": {"site-0": np.zeros(1), "site-1": np.zeros(1), "away": np.ones(1)}, "trained": {}}
    assert run.fold(by, [0.0], [[2.0], [4.0]], [1, 9], losses((1, 1), (1, 1))).tolist() == [3.0]
