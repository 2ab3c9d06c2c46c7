"""The page, the CSV files and the terminal table of made-up simulations."""

import base64
import csv
import io
import itertools
import json
import math
import re
import statistics
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from common.errors import CheckpointError
from server.report.charts import ticks
from server.report.html import duration, size, write_report
from server.report.terminal import print_summary
from server.report.verdict import judge

Make = Callable[..., dict[str, Any]]
VOID = {"meta", "br", "img", "line", "rect", "path", "polygon", "polyline"}
CSS_DAGGER = 'content: "† "'
EVIL = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def write(folder: Path, results: dict[str, Any]) -> str:
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"sites": 2, "labels": 1, "seeds": 1, "rounds": 1, "unseen": False},
        {"sites": 24, "labels": 10, "seeds": 1, "rounds": 3},
        {"sites": 2, "seeds": 1},
    ],
)
def test_the_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path: Path, make_results: Make, shape: Any) -> None:
    results = make_results(**shape)
    text = write(tmp_path, results)
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "a", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert attributes.get(name, "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|nan|NaN|None", text)
    assert all(s["name"] in text for s in results["sites"])


def test_names_cannot_become_markup(tmp_path: Path, make_results: Make, png: bytes) -> None:
    clean = make_results(sites=3, seeds=1, rounds=2)
    clean["sites"][0]["findings"] = [dict.fromkeys(("code", "severity", "case", "what", "remedy"), "plain")]
    clean["pictures"] = [{"site": "St. Elm", "method": "fedavg", "rank": "worst", "case": "case-001", "dice": None,
                          "png": "a.png"}]  # fmt: skip
    (tmp_path / "a.png").write_bytes(png)
    tags = [tag for tag, _ in Page(write(tmp_path, clean)).tags]
    text = json.dumps(clean)
    for name in ("St. Elm", "case-001", "anterior", "FedAvg", "plain", "hippocampus-five-sites", "Anterior and",
                 "name: hippo", "cpu", "2.13.0"):  # fmt: skip
        assert name in text
        text = text.replace(name, json.dumps(EVIL)[1:-1])
    page = Page(write(tmp_path, json.loads(text)))
    assert [tag for tag, _ in page.tags] == tags
    assert EVIL in "".join(page.text)


def test_pictures_are_embedded_and_only_from_the_folder(tmp_path: Path, make_results: Make, png: bytes) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "good.png").write_bytes(png)
    (folder / "text.png").write_text("no picture")
    (tmp_path / "outside.png").write_bytes(png)
    results = make_results(sites=3, seeds=1, rounds=2)
    results["pictures"] = [
        {"site": "St. Elm", "method": "fedavg", "rank": "best", "case": f"case of {name}", "dice": 0.9, "png": name}
        for name in ("good.png", "text.png", "gone.png", "../outside.png", str(tmp_path / "outside.png"))
    ]
    page = Page(write(folder, results))
    shown = [a["src"] for tag, a in page.tags if tag == "img"]
    assert shown == ["data:image/png;base64," + base64.b64encode(png).decode()]
    assert "".join(page.text).count("the picture is missing") == 4


def test_cases_csv_holds_every_row_exactly(tmp_path: Path, make_results: Make) -> None:
    results = make_results(sites=3, seeds=2, rounds=2)
    results["cases"][0]["case"] = 'quote " comma, newline\n'
    write(tmp_path, results)
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    back = [
        {"seed": int(r["seed"]), **{k: r[k] for k in ("method", "trained_on", "site", "case", "patient")},
         "dice": {x: float(r[f"dice_{x}"]) if r[f"dice_{x}"] else None for x in results["labels"]}}
        for r in rows
    ]  # fmt: skip
    assert back == results["cases"]


def test_summary_csv_and_json_agree_with_the_rows(tmp_path: Path, make_results: Make) -> None:
    results = make_results(sites=3, labels=1, seeds=2, rounds=2)
    text = write(tmp_path, results)
    content = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["mean"]) for r in rows] == [s["mean"] for s in content["summary"]]
    rows = [r for r in rows if r["label"] == "all"]
    line = next(r for r in rows if r["method"] == "fedavg" and r["site"] == "St. Elm")
    cases = [c for c in results["cases"] if c["method"] == "fedavg" and c["site"] == "St. Elm"]
    assert float(line["mean"]) == pytest.approx(fmean(c["dice"]["anterior"] for c in cases))
    assert (line["low"], line["patients"], line["cases"]) == ("", "4", "4")
    means = {(r["site"], r["method"]): float(r["mean"]) for r in rows}
    for site in {r["site"] for r in rows}:
        best = [m for (s, m), v in means.items() if s == site and v == max(means[site, k["key"]] for k in
                results["methods"])]  # fmt: skip
        assert [r["method"] for r in rows if r["site"] == site and r["best"] == "True"] == best
    trained = [s["name"] for s in results["sites"] if s["use"] == "train"]
    expected = fmean(means[s, "fedavg"] for s in trained)
    assert means["(mean of training sites)", "fedavg"] == pytest.approx(expected)
    assert f"{expected:.3f}" in text
    assert content["headline"] in text


def test_summary_has_every_label_at_every_site(tmp_path: Path, make_results: Make) -> None:
    results = make_results(sites=3, labels=2, seeds=2, rounds=2)
    text = write(tmp_path, results)
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = [*(s["name"] for s in results["sites"]), "(mean of training sites)"]
    expected = {(m["key"], s, x) for m in results["methods"] for s in places for x in ("all", *results["labels"])}
    assert {(r["method"], r["site"], r["label"]) for r in rows} == expected
    assert len(rows) == len(expected)
    line = next(r for r in rows if (r["method"], r["site"], r["label"]) == ("fedavg", "St. Elm", "posterior"))
    by_case: dict[str, list[float]] = {}
    for c in results["cases"]:
        if (c["method"], c["site"]) == ("fedavg", "St. Elm") and c["dice"]["posterior"] is not None:
            by_case.setdefault(c["case"], []).append(c["dice"]["posterior"])
    values = sorted(fmean(v) for v in by_case.values())
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    assert [float(line[k]) for k in ("median", "q1", "q3", "worst", "mean")] == pytest.approx(
        [median, q1, q3, values[0], fmean(values)]
    )
    assert line["complete"] == "True"
    assert f"<td>{median:.3f}<small>{q1:.3f}–{q3:.3f}</small><small>worst {values[0]:.3f}</small></td>" in text


def fail(results: dict[str, Any]) -> dict[str, Any]:
    """St. Elm's local model diverged under seed 2, and Lakeside did not answer FedProx's final test."""
    gone = [("local", "St. Elm", None), ("fedprox", "all", "Lakeside")]
    for method, trained_on, site in gone:
        results["cases"] = [
            c for c in results["cases"]
            if (c["method"], c["trained_on"], c["seed"]) != (method, trained_on, 2) or site not in (None, c["site"])
        ]  # fmt: skip
    results["failures"] = [{"seed": 2, "method": "local", "trained_on": "St. Elm", "why": "its loss is not finite"}]
    return results


def test_failures_are_on_the_page_in_the_files_and_in_the_terminal(tmp_path: Path, make_results: Make) -> None:
    results = fail(make_results(sites=4, rounds=3))
    text = write(tmp_path, results)
    page = "".join(Page(text).text)
    lines = ["Local only at site St. Elm failed (seed 2): its loss is not finite.",
             "FedProx has no final test at Lakeside (seed 2): the results hold no test case of it."]  # fmt: skip
    assert all(line in page for line in lines)
    assert "†" in page
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = {(r["method"], r["site"], r["label"]): r for r in csv.DictReader(file)}
    incomplete = {(m, s) for (m, s, label), r in rows.items() if label == "all" and r["complete"] == "False"}
    castell = results["sites"][3]["name"]
    mean = "(mean of training sites)"
    assert incomplete == {("local", "St. Elm"), ("local", castell), ("local", mean), ("fedprox", "Lakeside"),
                          ("fedprox", mean)}  # fmt: skip
    assert not any(r["best"] == "True" for r in rows.values() if r["complete"] == "False")
    assert len(json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["failures"]) == 2
    console = Console(width=200, record=True, file=io.StringIO())
    print_summary(results, console)
    shown = console.export_text()
    assert all(f"† {line}" in shown for line in lines)
    assert shown.count("†") == len(incomplete) + len(lines)


def test_seeds_that_could_not_be_compared_are_counted(make_results: Make) -> None:
    seeds = next(s for s in judge(fail(make_results(sites=4, rounds=1))).sentences if "repeated" in s)
    assert "with 3 seeds on the same split" in seeds
    assert "(of the 2 that are complete)" in seeds


def test_a_whole_page_has_no_dagger(tmp_path: Path, make_results: Make) -> None:
    assert "†" not in "".join(Page(write(tmp_path, make_results(sites=3, rounds=2))).text).replace(CSS_DAGGER, "")


def test_a_method_that_failed_everywhere_is_said_to_have_failed(tmp_path: Path, make_results: Make) -> None:
    results = make_results(sites=3, seeds=1, rounds=2)
    for key in ("cases", "costs", "curves"):
        results[key] = [c for c in results[key] if c["method"] != "consensus"]
    results["failures"] = [{"seed": 1, "method": "consensus", "trained_on": "all", "why": EVIL}]
    page = Page(write(tmp_path, results))
    assert "script" not in [tag for tag, _ in page.tags]
    assert f"Consensus of local models failed: {EVIL}." in "".join(page.text)
    assert "".join(page.text).count("failed") >= 4  # the line, and a cell at each of two sites and in the mean
    console = Console(width=200, record=True, file=io.StringIO())
    print_summary(results, console)
    assert console.export_text().count("failed†") == 4


def test_missing_values_are_dashes(tmp_path: Path, make_results: Make) -> None:
    results = make_results(sites=3, seeds=1, rounds=2)
    results["cases"] = [c for c in results["cases"] if (c["method"], c["site"]) != ("fedavg", "St. Elm")]
    results["curves"] = []
    for cost in results["costs"]:
        cost.update(seconds=None, bytes_up=None, best_round=None)
    text = "".join(Page(write(tmp_path, results)).text)
    assert "–" in text
    assert "How training went" not in text


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "no such file"), ("{", "damaged"), ("[]", "format 1"), ('{"format": 2}', "format 1"),
     ('{"format": 1}', "study, versions")],
)  # fmt: skip
def test_a_wrong_folder_is_explained(tmp_path: Path, content: str | None, word: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(CheckpointError, match=word):
        write_report(tmp_path)


def test_terminal_marks_the_best_and_says_the_verdict(make_results: Make) -> None:
    results = make_results()
    results["sites"][1]["name"] = "[bold]St. Elm[/bold]"
    for c in results["cases"]:
        c["site"] = c["site"].replace("St. Elm", "[bold]St. Elm[/bold]")
        c["trained_on"] = c["trained_on"].replace("St. Elm", "[bold]St. Elm[/bold]")
    console = Console(width=100, record=True, file=io.StringIO(), force_terminal=True)
    print_summary(results, console)
    plain, styled = console.export_text(clear=False), console.export_text(styles=True)
    assert "[bold]St. Elm[/bold]" in plain
    assert "Yes on average, but not for every site." in plain
    lakeside = next(line for line in styled.splitlines() if "Lakeside" in line)
    own = [c["dice"] for c in results["cases"]
           if (c["method"], c["trained_on"], c["site"]) == ("local", "Lakeside", "Lakeside")]  # fmt: skip
    best = fmean(fmean(v for v in d.values() if v is not None) for d in own)
    assert re.findall(r"\x1b\[1m *([\d.]+)", lakeside) == [f"{best:.3f}"]
    assert max(len(line) for line in plain.splitlines()) <= 100


def test_many_methods_are_laid_below_each_other(tmp_path: Path, make_results: Make) -> None:
    """Five copies of one method on a terminal and a page: the means of a copy are those of the method."""
    results = make_results(sites=3, seeds=1, rounds=2, distances=True)
    for copy in (f"again-{i}" for i in range(5)):
        results["methods"].append({"key": copy, "title": copy, "kind": "federated"})
        for rows in (results["cases"], results["costs"], results["curves"]):
            rows += [{**r, "method": copy} for r in rows if r["method"] == "fedavg"]
    console = Console(width=100, record=True, file=io.StringIO())
    print_summary(results, console)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    shown = {line[0]: line[1:] for line in lines if len(line) == 6}
    assert list(shown) == [m["title"] for m in results["methods"]]
    assert shown["again-4"] == shown["FedAvg"] != shown["FedProx"]
    page = Page(write(tmp_path, results))
    text = " ".join(" ".join(page.text).split())
    assert "★ marks the best method of a column" in text
    found = re.search(r"again-4 ([\d.]+)", text)
    assert found is not None
    assert found[1] == shown["FedAvg"][0]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_of_the_terminal_table_is_cut(make_results: Make, width: int) -> None:
    results = make_results(sites=4, seeds=1, rounds=2, distances=True)
    console = Console(width=width, record=True, file=io.StringIO())
    print_summary(results, console)
    cells = [cell.strip() for line in console.export_text().splitlines() for cell in line.split("│")[2:-1]]
    assert cells
    assert all(re.fullmatch(r"[\d.]+†?|–|failed†?", cell) for cell in cells)


def test_sizes_and_times_read_well() -> None:
    sizes = {None: "–", 0: "0 B", 999: "999 B", 1000: "1.0 kB", 4_812_344: "4.8 MB", 2.5e13: "25.0 TB"}
    assert {v: size(v) for v in sizes} == sizes
    times = {None: "–", 0.26: "0.3 s", 61.2: "61 s", 600: "10 min", 7199: "2 h 00 min", 11_100: "3 h 05 min"}
    assert {v: duration(v) for v in times} == times


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.73, 1), (0.999, 1), (-2.5, 380), (0.4, 0.4), (1e-9, 2e-9)])
def test_ticks_enclose_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 7
    steps = {round(b - a, 9) for a, b in itertools.pairwise(found)}
    assert len(steps) == 1
    power = 10 ** math.floor(math.log10(next(iter(steps))) + 1e-9)
    assert round(next(iter(steps)) / power, 6) in (1, 2, 5)
