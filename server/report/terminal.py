"""The result of a simulation on one terminal screen."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.report.measures import measures
from server.report.sentences import failed
from server.report.tables import Scores, winners
from server.report.verdict import judge

COLOURS = {"better": "green", "mixed": "yellow", "open": "yellow", "worse": "red", "none": "yellow"}


def print_summary(results: Mapping[str, Any], console: Console) -> None:
    """Print mean test Dice by site and method (the best in bold), other metrics' means, what failed, and the verdict.

    Args:
        results: The content of `results.json`.
    """
    scores = Scores(results)
    title = "Mean Dice on test scans" + ("" if scores.judged else " (best in bold)")
    table = Table(title=title, title_justify="left", title_style="bold")
    # Text, not markup: names come from files.
    table.add_column("site", overflow="ellipsis", no_wrap=True, max_width=26)
    for method in scores.methods:
        table.add_column(Text(scores.titles[method]), justify="right", max_width=12)
    for site in scores.trained:
        table.add_row(Text(site), *_cells(scores, site))
    if len(scores.trained) > 1:
        table.add_section()
        table.add_row(f"mean of {scores.group}", *_cells(scores, None))
    if scores.unseen:
        table.add_section()
    for site in scores.unseen:
        table.add_row(Text(f"{site} (not in training)"), *_cells(scores, site))
    others = [Scores(results, measure) for measure in measures(results)[1:]]
    if others:
        table.add_section()
    for other in others:
        table.add_row(f"mean {other.measure.heading}", *_cells(other, None))
    console.print(table)
    for line in failed(scores):
        console.print(Text(f"† {line}", style="red"))
    verdict = judge(results, scores)
    console.print(Text(verdict.headline, style=f"bold {COLOURS[verdict.tone]}"))
    if verdict.sentences:
        console.print(Text(verdict.sentences[0]))


def _cells(scores: Scores, site: str | None) -> list[Text]:
    first = winners(scores.contest(site), scores.measure)
    return [Text(_cell(scores, m, site), style="bold" if m in first else "") for m in scores.methods]


def _cell(scores: Scores, method: str, site: str | None) -> str:
    """The mean; † marks one that something is missing in."""
    found, gaps = scores.summary(method, site), scores.missing(method, site)
    return ("failed" if gaps and not found else scores.measure.text(found.mean if found else None)) + (
        "†" if gaps else ""
    )
