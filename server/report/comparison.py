"""Two methods against each other, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from server.report.tables import CaseScore, Scores, Summary, paired, summarise, summarise_sites

Sign = Literal["better", "worse", "open", "few"]


@dataclass(frozen=True)
class Difference:
    """`first` minus `second` over the cases that both have.

    Attributes:
        site: None for the mean over the training sites.
        means: The two methods' means over these cases.
        summary: Of the differences.
    """

    first: str
    second: str
    site: str | None
    means: tuple[float, float]
    summary: Summary

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
    for place in scores.trained if site is None else [site]:
        a, b = scores.at(first, place), scores.at(second, place)
        if difference := paired(a, b):
            pairs.append(difference)
            means.append((_mean(a, difference), _mean(b, difference)))
    summary = summarise_sites(pairs) if site is None else summarise(pairs[0]) if pairs else None
    if summary is None:
        return None
    ours, theirs = zip(*means, strict=True)
    return Difference(first, second, site, (fmean(ours), fmean(theirs)), summary)


def _mean(cases: Sequence[CaseScore], pairs: Sequence[CaseScore]) -> float:
    """Mean of `cases` over exactly the cases and seeds of `pairs`."""
    by_case = {c.case: c.by_seed for c in cases}
    return fmean(fmean(by_case[p.case][seed] for seed in p.by_seed) for p in pairs)
