"""A structure far outside what the site's other cases show: its volume, its number of parts."""

from collections.abc import Sequence

import numpy as np

from client.data.gate.codes import finding
from client.data.gate.summary import Structure
from client.data.volume import Case, Finding

# Cases with the label that make a range of their own.
FEWEST = 10
# Robust standard deviations of the log-volume; of 948 clean cases of three sets one lies outside, and is odd indeed.
FAR = 5.0
# Never less than a factor of exp(5 × 0.08) = 1.5: sites with nearly equal volumes have no outliers within that.
_LEAST_SPREAD = 0.08
# Parts from which a structure is scattered, and how many times more than the site's usual number.
_PARTS, _TIMES = 8, 4


def check_volumes(cases: Sequence[tuple[Case, Sequence[Structure | None]]], labels: Sequence[str]) -> list[Finding]:
    """`label-volume`: larger or smaller than the site's other cases by far (median and MAD of the log-volume)."""
    found = []
    for number, name in enumerate(labels):
        known = [(case, s["volume"]) for case, structures in cases if (s := structures[number]) is not None]
        if len(known) < FEWEST:
            continue
        logs = np.log([volume for _, volume in known])
        middle = float(np.median(logs))
        spread = max(1.4826 * float(np.median(np.abs(logs - middle))), _LEAST_SPREAD)
        for (case, _), value in zip(known, logs, strict=True):
            if abs(value - middle) > FAR * spread:
                factor, way = np.exp(abs(value - middle)), "larger" if value > middle else "smaller"
                what = f"{case.label}: {name} is {factor:.1f} times {way} than in the site's middle case"
                found.append(finding("label-volume", case.id, what))
    return found


def check_fragments(cases: Sequence[tuple[Case, Sequence[Structure | None]]], labels: Sequence[str]) -> list[Finding]:
    """`label-fragments`: a structure in many loose parts, far more than in the site's other cases."""
    found = []
    for number, name in enumerate(labels):
        known = [(case, s["fragments"]) for case, structures in cases if (s := structures[number]) is not None]
        if not known:
            continue
        usual = float(np.median([parts for _, parts in known])) if len(known) >= FEWEST else 1.0
        for case, parts in known:
            if parts >= max(_PARTS, _TIMES * usual):
                what = f"{case.label}: {name} lies in {parts} loose parts (usual here: {usual:g})"
                found.append(finding("label-fragments", case.id, what))
    return found
