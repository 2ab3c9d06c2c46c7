"""Dials of phantom hospitals that turn one thing at a time, where `difference` turns all at once.

Each is 0 unless set, and at 0 changes nothing: patients, noise and files are those of the same seed without it.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from simulations.scanner import Scan, Scanner

# Logs of the exponents; more sites go round again.
_CURVES = (0.0, 1.0, -1.0, 0.5, -0.5)


class Turned(NamedTuple):
    """What the dials mean for one hospital.

    Attributes:
        gamma: Added to the log of the exponent of its grey value curve.
        without_kidneys: Share of its patients who have no kidney, whoever else lacks one.
        mislabelled: Share of its cases in which liver and kidneys bear each other's number.
    """

    gamma: float
    without_kidneys: float
    mislabelled: float

    def scanner(self, usual: Scanner) -> Scanner:
        """The hospital's scanner, which would be `usual`."""
        return replace(usual, gamma=usual.gamma + self.gamma)

    def lacks_kidneys(self, case: int) -> bool:
        """Whether patient number `case` (from 0) has no kidney."""
        return is_one_of(self.without_kidneys, case)

    def labelled(self, right: Scan, case: int) -> Scan:
        """Scan number `case` as the hospital labels it, from the one with the right label map (liver 1, kidneys 2)."""
        if not is_one_of(self.mislabelled, case):
            return right
        return replace(right, label=np.array([0, 2, 1], np.uint8)[right.label])


@dataclass(frozen=True)
class Dials:
    """How phantom hospitals differ, one thing at a time.

    Attributes:
        contrast: How far the hospitals' grey value curves lie apart: the exponents of the signal lie between
            e^-contrast and e^contrast.
        rarity: Share of the patients of every second hospital who have no kidney.
        wrong_labels: Share of the last hospital's cases in which liver and kidneys bear each other's number.
    """

    contrast: float = 0.0
    rarity: float = 0.0
    wrong_labels: float = 0.0

    def at(self, site: int, sites: int) -> Turned:
        """What they mean for site number `site` (from 0) of `sites`."""
        return Turned(
            gamma=self.contrast * _CURVES[site % len(_CURVES)],
            without_kidneys=self.rarity if site % 2 else 0.0,
            mislabelled=self.wrong_labels if site == sites - 1 else 0.0,
        )


STILL = Dials()
"""No dial is turned."""


def is_one_of(share: float, number: int) -> bool:
    """Whether `number` (from 0) is one of those that make up `share` of all numbers.

    They lie evenly: of the first n numbers, whatever n is, it is true of ⌊share · n⌋.
    """
    return math.floor(share * (number + 1) + 1e-9) > math.floor(share * number + 1e-9)
