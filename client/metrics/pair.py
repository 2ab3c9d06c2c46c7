"""One label in two label maps, cut out of them, with what several metrics measure of it."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.metrics.surface import Distances, distances
from common.labels import IGNORE

Mask = NDArray[np.bool_]
Map = NDArray[np.uint8]


class Pair:
    """A label in a prediction and in the truth.

    Args:
        found: `(*B)` where the prediction has it, in a box that holds it in both maps; empty if neither map has it.
        there: `(*B)` where the truth has it.
        spacing: Voxel size in mm.
        diagonal: Of the whole image, in mm.
    """

    def __init__(self, found: Mask, there: Mask, spacing: Sequence[float], diagonal: float) -> None:
        self.found = found
        self.there = there
        self.spacing = tuple(spacing)
        self.diagonal = diagonal

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Voxels of the prediction, of the truth, and of both."""
        both = np.count_nonzero(self.found & self.there)
        return int(np.count_nonzero(self.found)), int(np.count_nonzero(self.there)), int(both)

    @property
    def one_sided(self) -> bool:
        """Whether exactly one of the maps has the label."""
        found, there, _ = self.sizes
        return (found == 0) != (there == 0)

    @property
    def empty(self) -> bool:
        """Whether neither map has it."""
        return self.sizes[:2] == (0, 0)

    @cached_property
    def distances(self) -> Distances:
        """Between the two surfaces; for labels that both maps have."""
        return distances(self.found, self.there, self.spacing)


def pairs(prediction: Map, truth: Map, spacing: Sequence[float], labels: int) -> Iterator[Pair]:
    """The labels 1 … `labels` of two maps, each cut to the box around it, one in memory at a time.

    Voxels that nobody labelled (IGNORE in the truth) are taken out of both maps.

    Args:
        prediction: Label map, any shape.
        truth: Label map of the same shape.
        spacing: Voxel size in mm.
        labels: Number of labels, background not counted.

    Raises:
        ValueError: The shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"label maps of different shapes: {prediction.shape} and {truth.shape}")
    unknown = truth == IGNORE
    if unknown.any():
        prediction, truth = np.where(unknown, np.uint8(0), prediction), np.where(unknown, np.uint8(0), truth)
    diagonal = math.hypot(*(n * s for n, s in zip(truth.shape, spacing, strict=True)))
    boxes = [ndimage.find_objects(a, max_label=labels) for a in (prediction, truth)]
    for value, (left, right) in enumerate(zip(*boxes, strict=True), start=1):
        box = _union(left, right, truth.ndim)
        yield Pair(prediction[box] == value, truth[box] == value, spacing, diagonal)


def _union(left: tuple[slice, ...] | None, right: tuple[slice, ...] | None, axes: int) -> tuple[slice, ...]:
    if left is None or right is None:
        return left or right or (slice(0, 0),) * axes
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(left, right, strict=True))
