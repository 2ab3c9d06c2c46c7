"""The two kinds of step between a net's probabilities and the label map that is judged.

A step on probabilities works on the plan's grid, before the most probable class is taken, and may look at the image.
A step on a label map works after it, on the case's own grid, on each label by itself. Both have options that a study
can state, so a step is a class whose keyword-only parameters are these options.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from common.registry import did_you_mean

Mask = NDArray[np.bool_]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]
Connectivity = Literal[4, 6, 8, 18, 26]

# How many steps, each along another axis, lead from a voxel to the neighbours that the word counts.
_STEPS = {2: {4: 1, 8: 2}, 3: {6: 1, 18: 2, 26: 3}}


class ProbabilityStep(ABC):
    """A step before the maximum is taken."""

    on: ClassVar = "probabilities"

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Option and what is wrong with it in a study of these dimensions and labels."""
        yield from ()

    @abstractmethod
    def __call__(self, probabilities: Tensor, image: Tensor, spacing: Sequence[float]) -> Tensor:
        """New probabilities.

        Args:
            probabilities: `(K, *S)`, sum over K = 1.
            image: `(C, *S)` as the net sees it, on the same device.
            spacing: Voxel size in mm of each axis (1 for pictures without a physical size).
        """


class LabelStep(ABC):
    """A step on the label map: each label's mask by itself, in the order of their values.

    A voxel that a mask loses becomes background. A voxel that it gains must have been background: what another label
    holds is never taken away.

    Args:
        labels: Names of the labels that are treated; none: all.
    """

    on: ClassVar = "label map"

    def __init__(self, *, labels: Labels | None = None) -> None:
        self.labels = labels

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Option and what is wrong with it in a study of these dimensions and labels."""
        for i, name in enumerate(self.labels or ()):
            if name not in labels:
                known = f"data.labels has {', '.join(labels)}"
                yield f"labels.{i}", f"unknown label '{name}'; {known}.{did_you_mean(name, labels)}"

    def __call__(self, label: NDArray[np.uint8], spacing: Sequence[float], labels: Sequence[str]) -> NDArray[np.uint8]:
        """A new label map.

        Args:
            label: `(*S)`; its value v is label v - 1 of `labels`, 0 is background.
            spacing: Voxel size in mm of each axis (1 for pictures without a physical size).
            labels: The study's names of the labels.
        """
        out = label.copy()
        boxes = ndimage.find_objects(label, max_label=len(labels))
        for value, (name, box) in enumerate(zip(labels, boxes, strict=True), start=1):
            if box is None or not (self.labels is None or name in self.labels):
                continue
            # What a step does depends on nothing but the mask and a margin around it.
            room = _grown(box, self.margin(spacing), label.shape)
            here = out[room]
            before = label[room] == value
            after = self.mask(before, spacing)
            here[before & ~after] = 0
            here[after & (here == 0)] = value
        return out

    def margin(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """Voxels around a label's bounding box that the step must see."""
        return (1,) * len(spacing)

    @abstractmethod
    def mask(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """The new mask of one label, in the shape of the old one."""


def neighbourhood(connectivity: int | None, dimensions: int) -> Mask:
    """The voxels `(3, 3, ...)` that count as connected to the middle one; None counts all of them."""
    steps = dimensions if connectivity is None else _STEPS[dimensions][connectivity]
    around: Mask = ndimage.generate_binary_structure(dimensions, steps)
    return around


def wrong_connectivity(connectivity: int | None, dimensions: int) -> Iterator[tuple[str, str]]:
    """What `misfits` says of a connectivity that does not exist in these dimensions."""
    allowed = _STEPS[dimensions]
    if connectivity is not None and connectivity not in allowed:
        words = " or ".join(map(str, allowed))
        yield "connectivity", f"is {connectivity}, but in {dimensions}D a voxel has {words} neighbours"


def _grown(box: Sequence[slice], margin: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, side.start - m), min(n, side.stop + m)) for side, m, n in zip(box, margin, shape, strict=True)
    )
