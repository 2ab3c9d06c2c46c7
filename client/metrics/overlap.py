"""Metrics that count voxels: which of them both maps have."""

import math

import numpy as np
from numpy.typing import NDArray

from client.metrics.pair import Pair
from common.labels import IGNORE


def dice(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], labels: int) -> tuple[float, ...]:
    """Dice of the labels 1 … `labels` of two maps, for those who need nothing else of them: one pass over the voxels.

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


def dice_of(pair: Pair) -> float:
    """2·|P ∩ T| / (|P| + |T|); NaN where neither map has the label."""
    found, there, both = pair.sizes
    return _ratio(2 * both, found + there)


def iou_of(pair: Pair) -> float:
    """|P ∩ T| / |P ∪ T|; NaN where neither map has the label."""
    found, there, both = pair.sizes
    return _ratio(both, found + there - both)


def sensitivity_of(pair: Pair) -> float:
    """|P ∩ T| / |T|; NaN where the truth has no label."""
    _, there, both = pair.sizes
    return _ratio(both, there)


def precision_of(pair: Pair) -> float:
    """|P ∩ T| / |P|; NaN where the prediction has no label."""
    found, _, both = pair.sizes
    return _ratio(both, found)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _voxels(label: NDArray[np.uint8], labels: int) -> NDArray[np.intp]:
    """Voxels of each of the labels 1 … `labels`."""
    return np.bincount(label.ravel(), minlength=labels + 1)[1 : labels + 1]
