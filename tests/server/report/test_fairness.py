"""Whom a method serves, and what other metrics say, against sums over the rows."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from rich.console import Console

from server.report.fairness import fairness, other_metric
from server.report.html import write_report
from server.report.measures import DICE, Measure, measures
from server.report.tables import Scores, winners
from server.report.terminal import print_summary

Make = Callable[..., dict[str, Any]]


def values(results: dict[str, Any], method: str, site: str, metric: str) -> list[float]:
    """Of each case the mean over labels and seeds."""
    cases: dict[str, dict[int, float]] = {}
    for row in results["cases"]:
        if (row["method"], row["site"]) == (method, site) and row["trained_on"] in (site, "all"):
            cases.setdefault(row["case"], {})[row["seed"]] = fmean(v for v in row[metric].values() if v is not None)
    return [fmean(found.values()) for found in cases.values()]


@pytest.mark.parametrize("place", [0, 1])
def test_the_worst_site_and_the_worst_case(make_results: Make, place: int) -> None:
    results = make_results(distances=True)
    every = [Scores(results, m) for m in measures(results)]
    metric, worst = every[place].measure.name, (min, max)[place]
    (row,) = [r for r in fairness(every)[place]["rows"] if r["method"] == "fedprox"]
    cases = {s: values(results, "fedprox", s, metric) for s in every[0].trained}
    means = {s: fmean(v) for s, v in cases.items()}
    assert row["mean"] == pytest.approx(worst(means.values()))
    assert row["mean"] == pytest.approx(means[row["site"]])
    assert row["range"] == pytest.approx(max(means.values()) - min(means.values()))
    assert row["deviation"] == pytest.approx(pstdev(means.values()))
    assert row["case"] == pytest.approx(worst(v for found in cases.values() for v in found))


def test_the_smaller_distance_wins(make_results: Make) -> None:
    results = make_results(distances=True)
    scores = Scores(results, measures(results)[1])
    table = other_metric(scores)
    for row in table["rows"]:
        means = [c["s"].mean for c in row["cells"] if not c["incomplete"]]
        best = [c["s"].mean for c in row["cells"] if c["best"]]
        assert {round(v, 2) for v in best} == {round(min(means), 2)}
    # What is nearer to no error at all is better, whatever its sign.
    assert winners({"a": -0.2, "b": 0.1, "c": None}, Measure("volume_error", "Volume error", "", 0.0)) == ["b"]
    assert winners({"a": 0.8, "b": 0.9}) == ["b"]
    assert DICE.gain(0.9, 0.8) == pytest.approx(0.1)
    assert measures(results)[1].gain(3.0, 5.0) == 2.0


def test_files_and_page_carry_every_metric(make_results: Make, tmp_path: Path) -> None:
    results = make_results(distances=True)
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for heading in ("Which differences are clear", "Whom it serves", "Measured otherwise", "HD95, mm"):
        assert heading in page
    with (tmp_path / "summary.csv").open(encoding="utf-8") as file:
        lines = [
            r for r in csv.DictReader(file) if (r["method"], r["site"], r["label"]) == ("fedavg", "Castell", "all")
        ]
    assert [line["metric"] for line in lines] == ["dice", "hd95"]
    assert float(lines[1]["mean"]) == pytest.approx(fmean(values(results, "fedavg", "Castell", "hd95")))
    assert float(lines[1]["worst"]) == pytest.approx(max(values(results, "fedavg", "Castell", "hd95")))
    with (tmp_path / "cases.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert float(first["hd95_anterior"]) == results["cases"][0]["hd95"]["anterior"]
    told = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["tests"]
    assert {t["metric"] for t in told} == {"dice", "hd95"}
    console = Console(width=160, record=True)
    print_summary(results, console)
    assert "mean HD95, mm" in console.export_text()
