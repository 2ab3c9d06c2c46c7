"""Are two methods different, or could chance explain it? Paired tests over patients, corrected for how many there are.

The test is Wilcoxon's signed-rank test (1945, doi:10.2307/3001968) on the patients' differences, two-sided. A patient's
value is the mean over its cases, a case's the mean over seeds, so that neither a second scan nor a second training
looks like another patient. All pairs of methods are tested, and p is corrected after Holm (1979, Scand. J. Stat. 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from server.report.bootstrap import MIN_PATIENTS, Values
from server.report.failures import PROBE
from server.report.tables import Scores, aligned, by_patient, differences

LEVEL = 0.05


@dataclass(frozen=True)
class PairedTest:
    """`first` against `second` over the patients of the training sites.

    Attributes:
        difference: Median over the patients of first − second.
        p: Of the test alone.
        adjusted: The same after Holm's correction over all pairs of the simulation.
        incomplete: Whether something failed, so that it rests on fewer patients or seeds.
    """

    first: str
    second: str
    patients: int
    difference: float
    p: float
    adjusted: float
    incomplete: bool = False

    @property
    def clear(self) -> bool:
        """Whether chance is no good explanation."""
        return self.adjusted < LEVEL


def paired_tests(scores: Scores) -> list[PairedTest]:
    """All pairs of methods with enough patients, in the order of the methods."""
    found = []
    for first, second in combinations([m for m in scores.methods if scores.kinds[m] != PROBE], 2):
        values = _patient_differences(scores, first, second)
        if len(values) >= MIN_PATIENTS:
            found.append((first, second, len(values), float(np.median(values)), signed_rank(values)))
    gaps = {m for m in scores.methods if scores.missing(m, None)}
    return [
        PairedTest(*one, p, bool(gaps & {one[0], one[1]}))
        for one, p in zip(found, holm([one[-1] for one in found]), strict=True)
    ]


def signed_rank(values: Values) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if all differences are 0."""
    if not np.any(values):
        return 1.0
    return float(stats.wilcoxon(values, zero_method="wilcox").pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the i-th smallest of m is multiplied by m − i + 1, and none falls below the last."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def _patient_differences(scores: Scores, first: str, second: str) -> Values:
    """`(P,)` first − second of each patient of the training sites that both have."""
    parts: list[Values] = []
    for site in scores.trained:
        cases = differences(*aligned(scores.rows(first, site), scores.rows(second, site), scores.measure))
        sums, counts = by_patient(cases)
        parts.append(sums / counts)
    # Equal values differ in the last bits after they were averaged; such a difference has no sign.
    values: Values = np.concatenate([np.zeros(0), *parts])
    return values.round(12)
