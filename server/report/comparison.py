"""Two methods against each other, case by case."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from server.report.tables import Scores, Summary, aligned, differences, summarise, summarise_sites

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
    pairs, means = [], []
    places = scores.trained if site is None else [site]
    for place in places:
        a, b = aligned(scores.rows(first, place), scores.rows(second, place))
        if a:
            pairs.append(differences(a, b))
            means.append((fmean(c.value for c in a), fmean(c.value for c in b)))
    summary = summarise_sites(pairs) if site is None else summarise(pairs[0]) if pairs else None
    if summary is None:
        return None
    ours, theirs = zip(*means, strict=True)
    gaps = tuple(s for s in places if scores.missing(first, s) or scores.missing(second, s))
    return Difference(first, second, site, (fmean(ours), fmean(theirs)), summary, len(pairs), gaps)
