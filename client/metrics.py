"""How alike two label maps are, per label, and means that say over how many cases.

The rule for empty masks, everywhere in fedscan: a label that is in neither map has no value (NaN) and is left out of
every mean; a label that is in one map only scores 0. So a case without the structure neither lifts a mean nor lowers
it unless the structure was wrongly found there.

Voxels that nobody labelled (IGNORE in the truth) are looked at in neither map.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.labels import IGNORE


class Mean(NamedTuple):
    """A mean, and the number of values that it is of; NaN of none."""

    value: float
    of: int


def dice(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], labels: int) -> tuple[float, ...]:
    """Dice's coefficient 2·|P ∩ T| / (|P| + |T|) of the labels 1 … `labels` (Dice 1945, doi:10.2307/1932409).

    Args:
        prediction: Label map, any shape.
        truth: Label map of the same shape; voxels of the value IGNORE do not count.
        labels: Number of labels, background not counted.

    Returns:
        One number per label: 0 … 1, or NaN where neither map has the label.

    Raises:
        ValueError: The shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"label maps of different shapes: {prediction.shape} and {truth.shape}")
    known = truth != IGNORE
    if not known.all():
        prediction, truth = prediction[known], truth[known]
    found = _voxels(prediction, labels)
    there = _voxels(truth, labels)
    both = _voxels(truth[prediction == truth], labels)
    sizes = found + there
    return tuple(2 * int(b) / int(n) if n else math.nan for b, n in zip(both, sizes, strict=True))


def mean(values: Iterable[float]) -> Mean:
    """The mean of the values that are not NaN."""
    present = [v for v in values if not math.isnan(v)]
    return Mean(math.fsum(present) / len(present) if present else math.nan, len(present))


def _voxels(label: NDArray[np.uint8], labels: int) -> NDArray[np.intp]:
    """Voxels of each of the labels 1 … `labels`."""
    return np.bincount(label.ravel(), minlength=labels + 1)[1 : labels + 1]
