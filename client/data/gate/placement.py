"""A mask that is mirrored or shifted with respect to its image, in one case or in all of a site.

Thresholds come from 948 clean cases (hippocampus MR, lung nodule CT, chest X-ray): mirrored masks fit better than
`MIRRORED` in 4 of 595 nodules and in none of the others, shifted ones better than `SHIFTED` and `FAR` in 4 nodules and
none of the others. Near a nodule lie vessels and the chest wall, whose edges are stronger than its own.
"""

from collections.abc import Sequence
from math import comb, exp
from statistics import median

from client.data.gate.codes import finding
from client.data.gate.mirrors import Edges
from client.data.gate.words import axis_names
from client.data.volume import Case, Finding

# Natural logarithm of how much stronger the edges under the other place of the mask are.
MIRRORED, SHIFTED = 0.10, 0.15
# Robust standard deviations by which a shift must stand out at a site, whose structures may all lie near stronger
# edges; without a site to compare with, a shift must fit so much better.
FAR, ALONE = 4.0, 0.4
# A mask this much like its mirror image (Dice) fits as well there.
ALIKE = 0.8
# Cases from which a site's masks are judged together, and the probability of so many by chance.
_TOGETHER, _CHANCE = 5, 1e-3
# Cases from which a site's shifts are compared.
_COMPARED = 10


def check_placement(case: Case, edges: Edges | None) -> list[Finding]:
    """`mask-mirrored`: mirrored along an axis, the mask's boundary would lie on clearly stronger edges."""
    if edges is None:
        return []
    flips = [(gain, axis) for axis, gain in enumerate(edges["flips"]) if edges["alike"][axis] < ALIKE]
    gain, axis = max(flips, default=(0.0, 0))
    if gain <= MIRRORED:
        return []
    name = axis_names(case, len(edges["flips"]))[axis]
    what = f"{case.label}: mirrored along {name}, the mask would fit its image better (edges {_more(gain)})"
    return [finding("mask-mirrored", case.id, what)]


def check_shifts(cases: Sequence[tuple[Case, Edges | None]]) -> list[Finding]:
    """`mask-shifted`: shifted along an axis, the mask would fit its image better, more so than at the site's others."""
    known = [(case, edges) for case, edges in cases if edges is not None]
    limit = ALONE
    if len(known) >= _COMPARED:
        gains = [edges["shift"] for _, edges in known]
        middle = median(gains)
        limit = max(SHIFTED, middle + FAR * 1.4826 * median(abs(gain - middle) for gain in gains))
    found = []
    for case, edges in known:
        # A mirrored mask fits better at many places; what fits best is said.
        mirrored = max((g for g, alike in zip(edges["flips"], edges["alike"], strict=True) if alike < ALIKE), default=0)
        if edges["shift"] > limit and not (mirrored > MIRRORED and mirrored >= edges["shift"]):
            where = f"{abs(edges['by'])} voxels along {axis_names(case, len(edges['flips']))[edges['along']]}"
            what = f"{case.label}: shifted by {where}, the mask would fit its image better "
            found.append(finding("mask-shifted", case.id, f"{what}(edges {_more(edges['shift'])})"))
    return found


def check_placements(cases: Sequence[tuple[Case, Edges | None]]) -> list[Finding]:
    """`masks-mirrored`: most masks of the site fit better mirrored along one and the same axis.

    A sign test over the cases: each alone may be too weak to be told. Masks in a wrong place may fit better along
    other axes too; the best one is named.
    """
    known = [(case, edges) for case, edges in cases if edges is not None]
    found: list[tuple[float, Finding]] = []
    for axis in range(max((len(e["flips"]) for _, e in known), default=0)):
        gains = [e["flips"][axis] for _, e in known if axis < len(e["flips"]) and e["alike"][axis] < ALIKE]
        better = sum(gain > 0 for gain in gains)
        if len(gains) >= _TOGETHER and median(gains) > 0 and _by_chance(better, len(gains)) < _CHANCE:
            name = axis_names(known[0][0], len(known[0][1]["flips"]))[axis]
            what = f"{better} of {len(gains)} masks fit their images better when mirrored along {name}"
            found.append((median(gains), finding("masks-mirrored", "", what)))
    return [max(found, key=lambda one: one[0])[1]] if found else []


def _by_chance(better: int, number: int) -> float:
    """Probability that at least `better` of `number` coins show heads."""
    return float(sum(comb(number, k) for k in range(better, number + 1)) / 2**number)


def _more(gain: float) -> str:
    return f"{exp(gain) - 1:.0%} stronger"
