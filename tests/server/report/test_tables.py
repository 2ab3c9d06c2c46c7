"""Numbers of the tables against sums done by hand or by plain loops over the rows."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from server.report.measures import Measure
from server.report.tables import (
    Scores,
    aligned,
    case_dice,
    case_scores,
    differences,
    seed_means,
    summarise,
    summarise_sites,
    winners,
)

Make = Callable[..., dict[str, Any]]


def row(value: float | None, case: str = "c1", seed: int = 1, site: str = "A", **more: Any) -> dict[str, Any]:
    return {"seed": seed, "method": "m", "trained_on": "all", "site": site, "case": case, "patient": f"p-{case}",
            "dice": {"x": value}} | more  # fmt: skip


def test_labels_that_are_absent_do_not_count() -> None:
    assert case_dice({"a": 0.8, "b": None, "c": 0.6}) == pytest.approx(0.7)
    assert case_dice({"a": 0.8, "b": 0.0}) == pytest.approx(0.4)
    assert case_dice({"a": None}) is None
    assert case_dice({"a": 0.8, "b": 0.2}, "b") == 0.2
    assert case_dice({"a": float("nan")}) is None


def test_seeds_are_averaged_per_case_first() -> None:
    # c2 has one seed only: a mean over rows would be 0.6, the mean over cases is (0.6 + 0.9) / 2.
    found = summarise(case_scores([row(0.8), row(0.4, seed=2), row(0.6, seed=3), row(0.9, "c2")]))
    assert found is not None
    assert found.mean == pytest.approx(0.75)
    assert (found.cases, found.patients) == (2, 2)
    assert found.seeds == pytest.approx({1: 0.85, 2: 0.4, 3: 0.6})
    assert found.spread == pytest.approx((0.4, 0.85))


def test_summary_of_known_values() -> None:
    found = summarise(case_scores([row(v / 10, f"c{v}") for v in range(1, 10)]))
    assert found is not None
    assert (found.mean, found.median, found.q1, found.q3, found.worst) == pytest.approx((0.5, 0.5, 0.3, 0.7, 0.1))
    assert found.low is not None
    assert found.high is not None
    assert 0.1 < found.low < 0.5 < found.high < 0.9


def test_every_site_weighs_the_same() -> None:
    big = case_scores([row(0.9, f"c{i}") for i in range(30)])
    small = case_scores([row(0.5, site="B")])
    found = summarise_sites([big, small, []])
    assert found is not None
    assert found.mean == pytest.approx(0.7)
    assert summarise_sites([[], []]) is None
    assert summarise([]) is None


def test_pairs_need_both_methods_in_the_same_seed() -> None:
    first = [row(0.9), row(0.7, seed=2), row(0.5, "c2"), row(None, "c3")]
    second = [row(0.6), row(None, "c3")]
    found = differences(*aligned(first, second))
    assert [c.case for c in found] == ["c1"]
    assert found[0].by_seed == pytest.approx({1: 0.3})
    assert seed_means(found) == pytest.approx({1: 0.3})


def test_who_rightly_draws_nothing_gets_one_against_who_draws_it() -> None:
    first = [row(None, "c1"), row(0.0, "c2"), row(None, "c3")]
    second = [row(0.0, "c1"), row(None, "c2"), row(None, "c3")]
    ours, theirs = aligned(first, second)
    assert [(a.case, a.value, b.value) for a, b in zip(ours, theirs, strict=True)] == [("c1", 1, 0), ("c2", 0, 1)]
    # The single score keeps the rule of the tables: nothing to count.
    assert case_scores(first[:1]) == []


def test_pairs_are_over_the_same_labels_on_both_sides() -> None:
    first = [row(None, dice={"x": 0.9, "y": None, "z": None})]
    second = [row(None, dice={"x": 0.8, "y": 0.0, "z": None})]
    ours, theirs = aligned(first, second)
    # By hand: x and y count; (0.9 + 1) / 2 against (0.8 + 0) / 2.
    assert (ours[0].value, theirs[0].value) == pytest.approx((0.95, 0.4))


def test_a_metric_that_says_nothing_of_a_case_is_no_praise() -> None:
    """Precision of an empty mask where the structure is: no value, and no ideal one; Dice has its 0."""
    precision = Measure("precision", "Precision", "", 1.0)
    first = [row(0.0, "c1", precision={"x": None}), row(None, "c2", precision={"x": None})]
    second = [row(0.8, "c1", precision={"x": 0.9}), row(0.0, "c2", precision={"x": 0.0})]
    ours, theirs = aligned(first, second, precision)
    assert [(a.case, a.value, b.value) for a, b in zip(ours, theirs, strict=True)] == [("c2", 1, 0)]


def test_a_pair_is_over_all_seeds_even_where_both_were_right() -> None:
    first = [row(None, seed=1), row(None, seed=2)]
    second = [row(None, seed=1), row(0.0, seed=2)]
    found = differences(*aligned(first, second))
    assert found[0].by_seed == {1: 0.0, 2: 1.0}
    assert found[0].value == 0.5


def test_pairs_with_several_models_of_a_case() -> None:
    """Where nobody trained, the local side is the mean over the models: (1 + 0) / 2 and (0.5 + 0.7) / 2."""
    first = [row(None), row(0.9, "c2")]
    second = [row(None), row(0.0), row(0.5, "c2"), row(0.7, "c2")]
    ours, theirs = aligned(first, second)
    assert [c.value for c in ours] == [1.0, 0.9]
    assert [c.value for c in theirs] == pytest.approx([0.5, 0.6])


def test_incomplete_means_do_not_compete(make_results: Make) -> None:
    results = make_results(sites=4, labels=1, seeds=2)
    assert Scores(results).failures == []
    whole = Scores(results)
    best = winners(whole.contest(None))
    results["cases"] = [c for c in results["cases"] if (c["method"], c["site"], c["seed"]) != (best[0], "St. Elm", 2)]
    scores = Scores(results)
    assert [(f.seed, f.site) for f in scores.missing(best[0], "St. Elm")] == [(2, "St. Elm")]
    assert scores.missing(best[0], "Lakeside") == []
    assert scores.contest(None)[best[0]] is None
    assert best[0] not in winners(scores.contest(None))
    assert scores.summary(best[0], None) is not None


def test_a_failed_local_model_is_missing_at_home_and_where_nobody_trained(make_results: Make) -> None:
    results = make_results(sites=4, seeds=1)
    results["cases"] = [c for c in results["cases"] if c["trained_on"] != "St. Elm"]
    results["failures"] = [{"seed": 1, "method": "local", "trained_on": "St. Elm", "why": "diverged"}]
    scores = Scores(results)
    assert len(scores.failures) == 1
    (away,) = scores.unseen
    hit = [s for s in scores.sites if scores.missing("local", s)]
    assert hit == ["St. Elm", away]
    assert scores.missing("fedavg", None) == []


def test_a_site_is_judged_by_its_own_model_or_by_the_mean_of_all(make_results: Make) -> None:
    results = make_results(sites=4, labels=1, seeds=2)
    scores = Scores(results)
    home, away = scores.trained[0], scores.unseen[0]
    local = [c for c in results["cases"] if c["method"] == "local"]
    own = [c["dice"]["anterior"] for c in local if c["site"] == home and c["trained_on"] == home]
    assert statistics.fmean(c.value for c in scores.at("local", home)) == pytest.approx(statistics.fmean(own))
    there = [c["dice"]["anterior"] for c in local if c["site"] == away]
    assert len(there) == 2 * 2 * 3  # 2 patients, 2 seeds, 3 local models
    assert statistics.fmean(c.value for c in scores.at("local", away)) == pytest.approx(statistics.fmean(there))
    other = scores.trained[1]
    cross = [c["dice"]["anterior"] for c in local if c["site"] == home and c["trained_on"] == other]
    found = scores.of_model("local", other, home)
    assert statistics.fmean(c.value for c in found) == pytest.approx(statistics.fmean(cross))
    assert scores.trainers("local") == scores.trained


def test_a_training_site_without_its_own_model_stays_empty(make_results: Make) -> None:
    results = make_results(sites=3, seeds=1)
    results["cases"] = [c for c in results["cases"] if c["trained_on"] != "St. Elm"]
    assert Scores(results).at("local", "St. Elm") == []


def test_equal_to_three_decimals_is_a_shared_first_place() -> None:
    assert winners({"a": 0.81249, "b": 0.8121, "c": 0.811, "d": None}) == ["a", "b"]
    assert winners({"a": None}) == []
