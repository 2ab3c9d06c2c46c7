"""Published tables, against means that are taken from the rows by hand."""

from statistics import fmean

from simulations.benchmarks.tables import tables
from tests.server.report.conftest import build


def test_rows_are_means_over_seeds_and_cases_and_the_share_is_of_pooled_kt() -> None:
    results = build(sites=3, labels=1, seeds=2, unseen=True, distances=True)
    lines = list(tables(results))
    assert lines[0].endswith("(2 seeds)")
    sites = [s["name"] for s in results["sites"]]

    def mean(method: str, site: str, metric: str) -> float:
        rows = [r for r in results["cases"] if r["method"] == method and r["site"] == site]
        return fmean(v for r in rows for v in r[metric].values())

    fed, pooled = ([mean(m, s, "dice") for s in sites] for m in ("fedavg", "pooled_kt"))
    share = fmean(fed[:2]) / fmean(pooled[:2])
    cells = " | ".join(f"{v:.3f}" for v in (*fed, fmean(fed[:2]), share))
    assert f"| FedAvg | {cells} |" in lines
    # A distance is no share of anything.
    distances = [*(mean("fedavg", s, "hd95") for s in sites), fmean(mean("fedavg", s, "hd95") for s in sites[:2])]
    assert f"| FedAvg | {' | '.join(f'{v:.2f}' for v in distances)} |" in lines
    assert [line for line in lines if line.startswith("| method")][1].endswith("mean of training sites |")
    assert f"{sites[-1]} (test only)" in lines[4]


def test_what_failed_is_marked_and_what_was_not_tested_left_out() -> None:
    results = build(sites=3, labels=1, seeds=2, unseen=False)
    results["failures"] = [{"seed": 2, "method": "fedavg", "trained_on": "all", "why": "the quorum was missed"}]
    results["cases"] = [
        r for r in results["cases"]
        if r["method"] != "consensus" and (r["method"], r["seed"]) != ("fedavg", 2)
    ]  # fmt: skip
    lines = list(tables(results))
    (row,) = [line for line in lines if line.startswith("| FedAvg |")]
    assert row.count("*") == 4
    assert not any("Consensus" in line for line in lines)


def test_with_which_model_each_site_ends() -> None:
    results = build(sites=2, labels=1, seeds=2, unseen=False)
    site = results["sites"][0]["name"]
    told = {"method": "fedavg", "site": site}
    results["choices"] = [
        told | {"seed": 1, "chosen": "its local model", "test": 0.5, "own_test": 0.7},
        told | {"seed": 2, "chosen": "the global model", "test": 0.6, "own_test": None},
    ]
    alone = [v for r in results["cases"] if (r["method"], r["site"], r["trained_on"]) == ("local", site, site)
             for v in r["dice"].values()]  # fmt: skip
    row = f"| FedAvg | {site} | its local model (1), the global model (1) | 0.550 | 0.700 | {fmean(alone):.3f} |"
    assert list(tables(results))[-1] == row
