"""The verdict says what rows with a known answer mean."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from server.report.comparison import compare_abroad
from server.report.html import key_figures
from server.report.paired import paired_tests
from server.report.tables import Scores
from server.report.verdict import Choice, choose, judge

Make = Callable[..., dict[str, Any]]


def study(gains: dict[str, float], patients: int = 12, seeds: int = 1, noise: float = 0.01) -> dict[str, Any]:
    """Sites A, B, … with local models at 0.80 and FedAvg at 0.80 + the site's gain."""
    rng = np.random.default_rng(0)
    rows = []
    for site, gain in gains.items():
        for k in range(patients):
            for seed in range(1, seeds + 1):
                for method, value in (("local", 0.8), ("fedavg", 0.8 + gain), ("pooled_t", 0.85)):
                    rows.append({"seed": seed, "method": method, "trained_on": site if method == "local" else "all",
                                 "site": site, "case": f"c{k}", "patient": f"p{k}",
                                 "dice": {"x": value + float(rng.normal(0, noise))}})  # fmt: skip
    return {
        "sites": [{"name": s, "use": "train", "test": patients} for s in gains], "labels": ["x"], "cases": rows,
        "seeds": list(range(1, seeds + 1)), "study": {"method": "fedavg"},
        "costs": [{"method": "fedavg", "validation": 0.8}],
        "methods": [{"key": "local", "title": "Local only", "kind": "baseline"},
                    {"key": "fedavg", "title": "FedAvg", "kind": "federated"},
                    {"key": "pooled_t", "title": "Pooled", "kind": "baseline"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "tone", "headline"),
    [
        ({"A": 0.05, "B": 0.06}, "better", "Yes: federation was worth it."),
        ({"A": 0.008, "B": 0.009}, "better", "Yes, but the gain is small."),
        ({"A": 0.09, "B": -0.03}, "mixed", "Yes on average, but not for every site."),
        ({"A": -0.05, "B": -0.04}, "worse", "No: the sites were better off with their own models."),
    ],
)
def test_headline(gains: dict[str, float], tone: str, headline: str) -> None:
    found = judge(study(gains, noise=0.004))
    assert (found.tone, found.headline) == (tone, headline)


def test_no_difference_is_called_open() -> None:
    found = judge(study({"A": 0.0, "B": 0.0}, noise=0.05))
    assert found.tone == "open"
    assert "contains 0" in found.sentences[0]
    assert [d.sign for d in found.sites] == ["open", "open"]


def test_the_stated_numbers_are_the_paired_means() -> None:
    results = study({"A": 0.02, "B": 0.04}, seeds=2)
    mean = {
        m: np.mean([[r["dice"]["x"] for r in results["cases"] if r["method"] == m and r["site"] == s] for s in "AB"])
        for m in ("local", "fedavg", "pooled_t")
    }
    found = judge(results)
    local, pooled = found.comparisons
    assert local.means == pytest.approx((mean["fedavg"], mean["local"]))
    assert local.summary.mean == pytest.approx(mean["fedavg"] - mean["local"])
    assert pooled.summary.mean == pytest.approx(mean["fedavg"] - mean["pooled_t"])
    assert pooled.sign == "worse"
    assert f"a difference of +{mean['fedavg'] - mean['local']:.3f}" in found.sentences[0]
    assert any("pooling was better" in s for s in found.sentences)
    assert "the table" not in found.sentences[0]


def test_a_losing_site_is_named_with_its_loss() -> None:
    found = judge(study({"A": 0.09, "B": -0.03}, noise=0.0))
    assert any("the local model was better at B (−0.030)" in s for s in found.sentences)


def test_few_patients_allow_no_verdict() -> None:
    found = judge(study({"A": 0.2, "B": 0.2}, patients=2))
    assert found.headline == "Open: too few test patients to say whether federation was worth it."
    assert {d.sign for d in found.sites} == {"few"}
    # Three of them together are enough for the mean, not for a site.
    together = judge(study({"A": 0.2, "B": 0.2, "C": 0.2}, patients=2))
    assert together.tone == "better"
    assert any("too few test patients to say (fewer than 6)" in s for s in together.sentences)


def test_a_better_consensus_takes_the_yes_away() -> None:
    results = study({"A": 0.02, "B": 0.02}, noise=0.002)
    results["methods"].append({"key": "consensus", "title": "Consensus", "kind": "baseline"})
    results["cases"] += [
        {**r, "method": "consensus", "dice": {"x": r["dice"]["x"] + 0.05}}
        for r in results["cases"]
        if r["method"] == "fedavg"
    ]
    found = judge(results)
    assert (found.tone, found.headline) == ("mixed", "Better than local models, but Consensus did better still.")


@pytest.mark.parametrize(("gone", "word"), [("local", "local models"), ("fedavg", "no federated method")])
def test_nothing_to_compare_is_said(gone: str, word: str) -> None:
    results = study({"A": 0.1, "B": 0.1})
    results["methods"] = [m for m in results["methods"] if m["key"] != gone]
    found = judge(results)
    assert found.tone == "none"
    assert word in found.headline


@pytest.mark.parametrize(("elsewhere", "where"), [(0, ""), (3, " at the sites that trained")])
def test_without_test_cases_nothing_is_judged_and_that_is_why(elsewhere: int, where: str) -> None:
    results = study({"A": 0.1, "B": 0.1})
    results["cases"] = []
    results["sites"] = [{**s, "test": 0} for s in results["sites"]] + [{"name": "C", "use": "test", "test": elsewhere}]
    found = judge(results)
    assert (found.tone, found.headline) == ("none", f"Not judged: there are no test cases{where}.")


def test_sentences_for_seeds_unseen_sites_and_selection(make_results: Make) -> None:
    many = judge(make_results())
    text = " ".join(many.sentences)
    assert "Castell took no part in training" in text
    assert "only 2 patients" in text
    assert "repeated with 3 seeds" in text
    assert "ahead in all of them" in text
    assert "before any test scan was read" in text
    assert many.headline == "Yes on average, but not for every site."
    assert any("one seed" in s for s in judge(make_results(seeds=1)).sentences)


def test_the_federated_method_is_chosen_on_validation_cases_not_on_test_cases() -> None:
    results = study({"A": 0.05, "B": 0.05})
    results["methods"].append({"key": "fedprox", "title": "FedProx", "kind": "federated"})
    worse = [c | {"method": "fedprox", "dice": {"x": c["dice"]["x"] - 0.02}}
             for c in results["cases"] if c["method"] == "fedavg"]  # fmt: skip
    results["cases"] += worse
    results["costs"].append({"method": "fedprox", "validation": 0.81})
    assert judge(results).federated == "fedprox"


def with_fedprox(results: dict[str, Any]) -> dict[str, Any]:
    """FedProx after FedAvg, 0.02 worse on the test cases, without validation."""
    results["methods"].insert(1, {"key": "fedprox", "title": "FedProx", "kind": "federated"})
    results["cases"] += [c | {"method": "fedprox", "dice": {"x": c["dice"]["x"] - 0.02}}
                         for c in results["cases"] if c["method"] == "fedavg"]  # fmt: skip
    results["costs"] = [{"method": m, "validation": None} for m in ("fedprox", "fedavg")]
    return results


def test_without_validation_cases_the_studys_own_strategy_stands_for_federation() -> None:
    results = with_fedprox(study({"A": 0.05, "B": 0.05}))
    found = judge(results)
    assert (found.federated, found.tone) == ("fedavg", "better")
    assert any(
        "No validation case could count" in s and "FedAvg stands for federation because it is the study’s own" in s
        for s in found.sentences
    )
    results["study"]["method"] = None
    found = judge(results)
    assert found.federated == "fedprox"
    assert any("because it is the first that was compared" in s for s in found.sentences)


def test_a_method_that_failed_under_a_seed_is_not_chosen_before_one_that_did_not() -> None:
    rows = [("fedavg", 0.8), ("fedavg", 0.8), ("fedprox", 0.9)]
    costs = [{"method": m, "validation": v} for m, v in rows]
    assert choose(costs, ["fedavg", "fedprox"], None) == Choice("fedavg", "validation")
    assert choose([{"method": "fedavg", "validation": None}], ["fedprox", "fedavg"], "fedprox") == Choice(
        "fedavg", "first"
    )
    assert choose([], ["fedavg"], "fedavg") is None


def test_failed_federated_methods_are_not_called_absent() -> None:
    results = study({"A": 0.05})
    results |= {"costs": [], "failures": [failure("fedavg", "all")]}
    results["cases"] = [c for c in results["cases"] if c["method"] != "fedavg"]
    assert judge(results).headline == "Not judged: every federated method failed."


def failure(method: str, trained_on: str, seed: int = 1) -> dict[str, Any]:
    return {"seed": seed, "method": method, "trained_on": trained_on, "why": "the weights are not finite"}


def test_a_failed_local_model_is_said_with_every_number_that_lacks_it() -> None:
    results = study({"A": 0.05, "B": 0.05, "C": 0.05})
    results["failures"] = [failure("local", "B")]
    results["cases"] = [c for c in results["cases"] if (c["method"], c["site"]) != ("local", "B")]
    found = judge(results)
    local, pooled = found.comparisons
    assert (local.compared, local.incomplete) == (2, ("B",))
    assert (pooled.compared, pooled.incomplete) == (3, ())
    assert "over 2 of 3 training sites" in found.sentences[0]
    assert "Incomplete: something failed for B." in found.sentences[0]
    assert found.headline == "Yes: federation was worth it. Some runs failed, so the comparison has gaps."


def test_figures_at_the_top_are_those_of_the_table() -> None:
    """A site that local training lost is a hard one: it counts in each figure that has it, and only there."""
    results = study({"A": 0.05, "B": 0.05, "C": 0.05})
    for case in results["cases"]:
        case["dice"] = {"x": case["dice"]["x"] - (0.6 if case["site"] == "C" else 0)}
    results["failures"] = [failure("local", "C")]
    results["cases"] = [c for c in results["cases"] if (c["method"], c["site"]) != ("local", "C")]
    scores = Scores(results)
    shown = {f["method"]: (f["mean"], f["incomplete"]) for f in key_figures(scores, judge(results))}
    means = {m: scores.summary(m, None) for m in ("fedavg", "local", "pooled_t")}
    assert shown == {m: (s.mean if s else None, m == "local") for m, s in means.items()}
    assert shown["fedavg"][0] == pytest.approx(0.65, abs=0.01)
    (first, *_) = [t for t in paired_tests(scores) if (t.first, t.second) == ("local", "fedavg")]
    assert (first.patients, first.incomplete) == (24, True)
    assert not next(t for t in paired_tests(scores) if (t.first, t.second) == ("fedavg", "pooled_t")).incomplete


def test_a_failed_local_model_is_missed_where_it_would_have_visited() -> None:
    results = study({"A": 0.0, "B": 0.0, "C": 0.0})
    local = [c for c in results["cases"] if c["method"] == "local"]
    results["cases"] += [{**c, "trained_on": other} for c in local for other in "AB" if other != c["site"]]
    results["cases"] = [c for c in results["cases"] if (c["method"], c["trained_on"]) != ("local", "C")]
    results["failures"] = [failure("local", "C")]
    abroad = compare_abroad(Scores(results), "fedavg", "local")
    assert abroad is not None
    assert abroad.incomplete == ("A", "B")


def test_a_model_that_failed_under_one_seed_marks_its_site() -> None:
    results = study({"A": 0.05, "B": 0.05}, seeds=2)
    gone = ("local", "B", 2)
    results["cases"] = [c for c in results["cases"] if (c["method"], c["site"], c["seed"]) != gone]
    found = judge(results)  # nothing is stated: the gap shows in the rows
    assert found.comparisons[0].incomplete == ("B",)
    assert any("federation was better at A and B (incomplete)" in s for s in found.sentences)
    assert "gaps" in found.headline


def test_what_only_one_method_draws_counts_against_it() -> None:
    """FedAvg draws a structure that is not there in every second case; local rightly draws nothing."""
    results = study({"A": 0.0, "B": 0.0}, noise=0.0)
    for row in results["cases"]:
        if int(row["case"][1:]) % 2:
            row["dice"]["x"] = 0.0 if row["method"] == "fedavg" else None
    found = judge(results)
    assert found.tone == "worse"
    assert found.comparisons[0].means == pytest.approx((0.4, 0.9))
    assert "the table leaves it out, so its means are slightly different" in found.sentences[0]


def visited(gain: float, away: float, noise: float = 0.02) -> dict[str, Any]:
    """Two sites at whose scans the other's local model reaches `away`, FedAvg 0.80 + `gain`."""
    results = study({"A": gain, "B": gain}, noise=noise)
    rng = np.random.default_rng(1)
    visits = [
        {**r, "trained_on": "B" if r["site"] == "A" else "A", "dice": {"x": away + float(rng.normal(0, 0.001))}}
        for r in results["cases"] if r["method"] == "local"
    ]  # fmt: skip
    return {**results, "cases": results["cases"] + visits}


def test_a_model_that_travels_is_worth_something_where_home_is_level() -> None:
    found = judge(visited(0.0, away=0.6))
    assert (found.tone, found.headline[:28]) == ("mixed", "Yes for scans from elsewhere")
    assert any("Away from home the local models reached 0.600 on average, FedAvg at the" in s for s in found.sentences)
    # What a local model does elsewhere is no excuse for losing at home, and no part of a clear yes.
    assert judge(visited(-0.05, away=0.6)).tone == "worse"
    assert judge(visited(0.05, away=0.6)).headline == "Yes: federation was worth it."
    level = judge(visited(0.0, away=0.8))
    assert level.tone == "open"
    assert any("no clear difference" in s for s in level.sentences if s.startswith("Away"))
