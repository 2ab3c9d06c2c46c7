"""How the numbers in a site's label files become the study's labels."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.label_rules import UNLABELLED, LabelEntry, LabelRange, LabelRule, entries
from common.errors import StudyError
from common.labels import IGNORE
from common.registry import did_you_mean

# Scaled integers come back from a file a little beside the whole number.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class LabelMap:
    """The rule of each study label, in the study's order.

    Attributes:
        rules: `(low, high)` ranges per label, both ends included; a single value v is (v, v).
        grey: Some label is a range: masks are grey, and what no rule covers is background instead of an error.
        ignore: The stored value of voxels that nobody labelled (the study's `data.ignore`).
        ignored: Stored values that are known and belong to no label: background.
        unlabelled: Labels that this site does not annotate; their voxels are not known to be background.
    """

    rules: tuple[tuple[tuple[float, float], ...], ...]
    grey: bool
    ignore: int | None = None
    ignored: tuple[int, ...] = ()
    unlabelled: tuple[str, ...] = ()

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
        """Stored values that nothing says anything of, sorted; NaN included."""
        present = np.unique(_whole(stored)).astype(np.float64)
        covered = present == self.ignore if self.ignore is not None else np.zeros(present.shape, dtype=bool)
        covered |= np.isin(present, self.ignored)
        for ranges in self.rules:
            for low, high in ranges:
                covered |= (present >= low) & (present <= high)
        background = np.isfinite(present) if self.grey else present == 0
        return [float(v) for v in present[~covered & ~background]]


def label_map(labels: Sequence[str], rules: Mapping[str, LabelRule], ignore: int | None = None,
              ignored: Sequence[LabelEntry] = ()) -> LabelMap:  # fmt: skip
    """The label map of a study's `labels` under a site's `rules`, for masks of numbers.

    A label without a rule is stored as its place in the study: 1 for the first. Names and codes find nothing in
    numbers.

    Args:
        labels: The study's labels.
        rules: The site's.
        ignore: The study's `data.ignore`.
        ignored: The site's.

    Raises:
        StudyError: A rule for a label that the study does not have, or one stored value for two labels, or for a
            label and `data.ignore` or `ignored`; or no label is annotated.
    """
    check_rules(labels, rules)
    ranges = tuple(_ranges(rules.get(name, place)) for place, name in enumerate(labels, start=1))
    background = tuple(entry for entry in ignored if isinstance(entry, int))
    taken = [(low, high, name) for name, own in zip(labels, ranges, strict=True) for low, high in own]
    taken += [(value, value, "ignored") for value in dict.fromkeys(background)]
    if ignore is not None:
        taken.append((ignore, ignore, "data.ignore"))
    for (_, high, first), (low, _, second) in itertools.pairwise(sorted(taken)):
        if low <= high:
            raise StudyError(
                f"labels: the stored value {low:g} belongs to {first} and to {second}; give each label its own values "
                "(a label without a rule is stored as its place in the study)"
            )
    grey = any(isinstance(rule, LabelRange) for rule in rules.values())
    return LabelMap(ranges, grey, ignore, background, unlabelled(labels, rules))


def check_rules(labels: Sequence[str], rules: Mapping[str, LabelRule], priority: Sequence[str] = ()) -> None:
    """Raise StudyError for a rule or a priority of a label that the study does not have, or if nothing is annotated."""
    for where, names in (("labels.", rules), ("priority: ", priority)):
        for name in names:
            if name not in labels:
                known = f"the study has no such label; it has {', '.join(labels)}"
                raise StudyError(f"{where}{name}: {known}.{did_you_mean(name, labels)}")
    for name, rule in rules.items():
        if isinstance(rule, tuple) and UNLABELLED in rule:
            raise StudyError(f"labels.{name}: `{UNLABELLED}` stands alone, without other rules beside it")
    if len(unlabelled(labels, rules)) == len(labels):
        raise StudyError(f"labels: every label is `{UNLABELLED}`; a site needs one that it annotates")


def unlabelled(labels: Sequence[str], rules: Mapping[str, LabelRule]) -> tuple[str, ...]:
    """The labels that the site does not annotate, in the study's order."""
    return tuple(name for name in labels if rules.get(name) == UNLABELLED)


def _ranges(rule: LabelRule) -> tuple[tuple[float, float], ...]:
    found = []
    for entry in entries(rule):
        if isinstance(entry, LabelRange):
            found.append((entry.low, entry.high))
        elif isinstance(entry, int):
            found.append((float(entry), float(entry)))
    return tuple(found)


def _whole(stored: NDArray[np.generic]) -> NDArray[Any]:
    """`stored` with values near a whole number set to it."""
    if stored.dtype.kind != "f":
        return stored
    values = np.asarray(stored, dtype=np.float64)
    nearest = np.rint(values)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values - nearest) < _ROUNDING, nearest, values)
