"""Two methods against each other, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from server.report.tables import Row, Scores, Summary, aligned, differences, summarise, summarise_sites

Sign = Literal["better", "worse", "open", "few"]


@dataclass(frozen=True)
class Difference:
    """`first` minus `second` over the cases, seeds and labels that both have.

    Attributes:
        site: None for the mean over the training sites.
        means: The two methods' means over these cases; a label that one of them rightly left out is 1 in them.
        summary: Of the differences.
        compared: How many sites it is of.
        incomplete: The sites that are missing in it or rest on fewer seeds or models, because something failed.
    """

    first: str
    second: str
    site: str | None
    means: tuple[float, float]
    summary: Summary
    compared: int = 1
    incomplete: tuple[str, ...] = ()

    @property
    def sign(self) -> Sign:
        """What the interval allows to say; "few" where there are too few patients for an interval."""
        if self.summary.low is None or self.summary.high is None:
            return "few"
        if self.summary.low > 0:
            return "better"
        return "worse" if self.summary.high < 0 else "open"


def compare(scores: Scores, first: str, second: str, site: str | None = None) -> Difference | None:
    """The paired difference at `site`, or over the training sites; None if no case has both."""
    places = scores.trained if site is None else [site]
    gaps = tuple(s for s in places if scores.missing(first, s) or scores.missing(second, s))
    cells = [(scores.rows(first, s), scores.rows(second, s)) for s in places]
    return _paired(first, second, site, cells, gaps)


def compare_abroad(scores: Scores, first: str, second: str) -> Difference | None:
    """`first` minus what the single-site models of `second` reach at the sites where they were not trained.

    Of each case the mean over the visiting models; sites in which none was tested are left out.
    """
    cells = [(scores.rows(first, s), scores.rows_of_visitors(second, s)) for s in scores.trained]
    gaps = tuple(s for s in scores.trained if scores.missing(first, s) or scores.missing_visitors(second, s))
    return _paired(first, second, None, cells, gaps)


def _paired(
    first: str, second: str, site: str | None, cells: Sequence[tuple[Sequence[Row], Sequence[Row]]],
    gaps: tuple[str, ...],
) -> Difference | None:  # fmt: skip
    pairs, means = [], []
    for ours, theirs in cells:
        a, b = aligned(ours, theirs)
        if a:
            pairs.append(differences(a, b))
            means.append((fmean(c.value for c in a), fmean(c.value for c in b)))
    summary = summarise_sites(pairs) if site is None else summarise(pairs[0]) if pairs else None
    if summary is None:
        return None
    left, right = zip(*means, strict=True)
    return Difference(first, second, site, (fmean(left), fmean(right)), summary, len(pairs), gaps)
