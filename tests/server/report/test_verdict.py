"""The verdict says what rows with a known answer mean."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from server.report.verdict import judge

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
        "sites": [{"name": s, "use": "train"} for s in gains], "labels": ["x"], "cases": rows,
        "seeds": list(range(1, seeds + 1)), "costs": [{"method": "fedavg", "validation": 0.8}],
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
