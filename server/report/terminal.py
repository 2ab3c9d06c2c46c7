"""The result of a simulation on one terminal screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.report.measures import measures
from server.report.sentences import failed
from server.report.tables import Scores, winners
from server.report.verdict import judge

SITE_WIDTH = 26  # characters of a site's name; longer ones are cut
CELL_WIDTH = 6  # 0.912 and a mark
COLOURS = {"better": "green", "mixed": "yellow", "open": "yellow", "worse": "red", "none": "yellow"}


def print_summary(results: Mapping[str, Any], console: Console) -> None:
    """Print mean test Dice by site and method (the best in bold), other metrics' means, what failed, and the verdict.

    Args:
        results: The content of `results.json`.
    """
    scores = Scores(results)
    title = "Mean Dice on test scans" + ("" if scores.judged else " (best in bold)")
    others = [Scores(results, measure) for measure in measures(results)[1:]]
    table = Table(title=title, title_justify="left", title_style="bold")
    room = (console.width - SITE_WIDTH - 4) // (CELL_WIDTH + 2)
    if len(scores.methods) <= room:
        _by_site(table, scores, others)
    else:
        _by_method(table, scores, others, room)
    console.print(table)
    for line in failed(scores):
        console.print(Text(f"† {line}", style="red"))
    verdict = judge(results, scores)
    console.print(Text(verdict.headline, style=f"bold {COLOURS[verdict.tone]}"))
    if verdict.sentences:
        console.print(Text(verdict.sentences[0]))


def _by_site(table: Table, scores: Scores, others: Sequence[Scores]) -> None:
    """A row for each site, then for each mean."""
    # Text, not markup: names come from files.
    table.add_column("site", overflow="ellipsis", no_wrap=True, max_width=SITE_WIDTH)
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
    if others:
        table.add_section()
    for other in others:
        table.add_row(f"mean {other.measure.heading}", *_cells(other, None))


def _by_method(table: Table, scores: Scores, others: Sequence[Scores], room: int) -> None:
    """A row for each of many methods, which would not fit beside each other; with many sites, too, the means alone."""
    few = len(scores.sites) + 1 + len(others) <= room
    places = [*(scores.sites if few else ()), None]
    columns = [(scores, place) for place in places] + [(other, None) for other in others]
    table.add_column("method", overflow="ellipsis", no_wrap=True, min_width=12)
    for found, place in columns:
        mean = f"mean of {found.group}" if found is scores else f"mean {found.measure.heading}"
        table.add_column(Text(mean if place is None else place), justify="right", max_width=12)
    cells = [_cells(found, place) for found, place in columns]
    for method, row in zip(scores.methods, zip(*cells, strict=True), strict=True):
        table.add_row(Text(scores.titles[method]), *row)


def _cells(scores: Scores, site: str | None) -> list[Text]:
    first = winners(scores.contest(site), scores.measure)
    return [Text(_cell(scores, m, site), style="bold" if m in first else "") for m in scores.methods]


def _cell(scores: Scores, method: str, site: str | None) -> str:
    """The mean; † marks one that something is missing in."""
    found, gaps = scores.summary(method, site), scores.missing(method, site)
    return ("failed" if gaps and not found else scores.measure.text(found.mean if found else None)) + (
        "†" if gaps else ""
    )
