"""Finished simulations as Markdown, to be published: `python -m simulations.benchmarks.tables FOLDER ...`.

One table for each metric of each folder: methods × sites, the mean of the training sites, and its share of pooled K·T's
where larger is better; with `evaluation.own` also with which model each site ended. Figures are means over seeds, cases
and labels, as in the simulation's own report. A cell with an asterisk rests on fewer seeds or sites than the others,
because something failed.
"""

import common.quiet  # noqa: F401

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from server.report.failures import LOCAL
from server.report.html import read_results
from server.report.measures import measures
from server.report.tables import Scores
from simulations.results import RESULTS

_POOLED = "pooled_kt"  # with whose mean the others are compared


def tables(results: Mapping[str, Any]) -> Iterator[str]:
    """The lines of all tables of one simulation."""
    seeds = len(results["seeds"])
    yield f"## {results['study']['name']} ({seeds} seed{'s' if seeds > 1 else ''})"
    for measure in measures(results):
        yield from ("", f"### {measure.heading}", "", *_table(Scores(results, measure)))
    if results.get("choices"):
        yield from ("", "### With which model each site ends", "", *_choices(results))


def _table(scores: Scores) -> Iterator[str]:
    sites: list[str | None] = [*scores.sites, None]
    share = scores.measure.ideal == 1 and _mean(scores, _POOLED, None) is not None
    heads = [f"{s} (test only)" if s in scores.unseen else s for s in scores.sites]
    columns = ["method", *heads, "mean of training sites", *(["of pooled K·T"] if share else [])]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for method in scores.methods:
        means = [_mean(scores, method, site) for site in sites]
        if all(value is None for value in means):
            continue
        cells = [
            scores.measure.text(value) + ("*" if value is not None and scores.missing(method, site) else "")
            for value, site in zip(means, sites, strict=True)
        ]
        if share:
            own, pooled = means[-1], _mean(scores, _POOLED, None)
            cells.append(f"{own / pooled:.3f}" if own is not None and pooled else "–")
        yield f"| {scores.titles[method]} | {' | '.join(cells)} |"


def _choices(results: Mapping[str, Any]) -> Iterator[str]:
    scores = Scores(results)
    yield "| method | site | ends with (seeds) | Dice of the global model | of what it ends with | trained alone |"
    yield "|---|---|---|---|---|---|"
    for method in scores.methods:
        for site in scores.trained:
            found = [c for c in results["choices"] if (c["method"], c["site"]) == (method, site)]
            if not found:
                continue
            chosen = Counter(c["chosen"] for c in found).most_common()
            means = [_known(c["test"] for c in found), _known(c["own_test"] for c in found),
                     _mean(scores, LOCAL, site)]  # fmt: skip
            told = ", ".join(f"{name} ({count})" for name, count in chosen)
            yield f"| {scores.titles[method]} | {site} | {told} | {' | '.join(map(scores.measure.text, means))} |"


def _known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean(scores: Scores, method: str, site: str | None) -> float | None:
    found = scores.summary(method, site) if method in scores.methods else None
    return None if found is None else found.mean


def main() -> None:
    """Print the tables of the folders that the command line names."""
    parser = argparse.ArgumentParser(description="Finished simulations as Markdown tables: methods x sites.")
    parser.add_argument("folders", nargs="+", type=Path, help="folders of finished simulations (with results.json)")
    for folder in parser.parse_args().folders:
        print("\n".join(tables(read_results(folder / RESULTS))), end="\n\n")


if __name__ == "__main__":
    main()
