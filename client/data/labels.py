"""How the numbers in a site's label files become the study's labels."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.site import LabelRange, LabelRule
from common.errors import StudyError
from common.labels import IGNORE

# Scaled integers come back from a file a little beside the whole number.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class LabelMap:
    """The rule of each study label, in the study's order.

    Attributes:
        rules: `(low, high)` ranges per label, both ends included; a single value v is (v, v).
        grey: Some label is a range: masks are grey, and what no rule covers is background instead of an error.
        ignore: The stored value of voxels that nobody labelled (the study's `data.ignore`).
    """

    rules: tuple[tuple[tuple[float, float], ...], ...]
    grey: bool
    ignore: int | None = None

    def apply(self, stored: NDArray[np.generic]) -> NDArray[np.uint8]:
        """`stored` values as 0 (background), 1 … n (the study's labels) or IGNORE, same shape."""
        values = _whole(stored)
        out = np.zeros(values.shape, dtype=np.uint8)
        for number, ranges in enumerate(self.rules, start=1):
            for low, high in ranges:
                out[(values >= low) & (values <= high)] = number
        if self.ignore is not None:
            out[values == self.ignore] = IGNORE
        return out

    def nothing_labelled(self, stored: NDArray[np.generic]) -> bool:
        """Whether every voxel has the value of those that nobody labelled."""
        return self.ignore is not None and bool((_whole(stored) == self.ignore).all())

    def unknown(self, stored: NDArray[np.generic]) -> list[float]:
        """Stored values that are neither background nor `ignore` nor covered by a rule, sorted; NaN included."""
        present = np.unique(_whole(stored)).astype(np.float64)
        covered = present == self.ignore if self.ignore is not None else np.zeros(present.shape, dtype=bool)
        for ranges in self.rules:
            for low, high in ranges:
                covered |= (present >= low) & (present <= high)
        background = np.isfinite(present) if self.grey else present == 0
        return [float(v) for v in present[~covered & ~background]]


def label_map(labels: Sequence[str], rules: Mapping[str, LabelRule], ignore: int | None = None) -> LabelMap:
    """The label map of a study's `labels` under a site's `rules`.

    A label without a rule is stored as its place in the study: 1 for the first.

    Args:
        labels: The study's labels.
        rules: The site's.
        ignore: The study's `data.ignore`.

    Raises:
        StudyError: A rule for a label that the study does not have, or one stored value for two labels, or for a
            label and `data.ignore`.
    """
    for name in rules:
        if name not in labels:
            near = difflib.get_close_matches(name, labels, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise StudyError(f"labels.{name}: the study has no such label; it has {', '.join(labels)}.{hint}")
    ranges = tuple(_ranges(rules.get(name, place)) for place, name in enumerate(labels, start=1))
    taken = [(low, high, name) for name, own in zip(labels, ranges, strict=True) for low, high in own]
    if ignore is not None:
        taken.append((ignore, ignore, "data.ignore"))
    for (_, high, first), (low, _, second) in itertools.pairwise(sorted(taken)):
        if low <= high:
            raise StudyError(
                f"labels: the stored value {low:g} belongs to {first} and to {second}; give each label its own values "
                "(a label without a rule is stored as its place in the study)"
            )
    return LabelMap(ranges, any(isinstance(rule, LabelRange) for rule in rules.values()), ignore)


def _ranges(rule: LabelRule) -> tuple[tuple[float, float], ...]:
    if isinstance(rule, LabelRange):
        return ((rule.low, rule.high),)
    values = (rule,) if isinstance(rule, int) else tuple(dict.fromkeys(rule))
    return tuple((float(v), float(v)) for v in values)


def _whole(stored: NDArray[np.generic]) -> NDArray[Any]:
    """`stored` with values near a whole number set to it."""
    if stored.dtype.kind != "f":
        return stored
    values = np.asarray(stored, dtype=np.float64)
    nearest = np.rint(values)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values - nearest) < _ROUNDING, nearest, values)
