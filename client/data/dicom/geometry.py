"""Where slices lie: orientation, order along the normal, spacing, and the one turn from LPS to RAS.

DICOM's patient axes point left, posterior and superior (PS3.3 C.7.6.2.1.1); ours point right, anterior and superior.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Cosines of slices of one volume may differ by this much (0.06°): headers round, and some recompute per slice.
SAME_DIRECTION = 1e-3
# Share of the slice distance by which a slice may lie off its place: rounded positions.
EVEN = 0.01
# Up to this share a volume is kept, with a warning; beyond, slices are missing or moved.
UNEVEN = 0.1
# mm; rounding to two decimals is never a finding.
ROUNDED = 0.0051
# Pixels by which the first and the last slice may lie beside each other before a stack counts as tilted.
SHIFT = 0.5

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def axes(orientation: Sequence[float]) -> Floats | None:
    """`(3, 3)`: unit vectors along a row, along a column, and their normal, in LPS; None if they are no right angle."""
    row, column = np.array(orientation[:3], dtype=np.float64), np.array(orientation[3:], dtype=np.float64)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not all(abs(length - 1) < 0.01 for length in lengths):
        return None
    row, column = row / lengths[0], column / lengths[1]
    if abs(float(row @ column)) > SAME_DIRECTION:
        return None
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    # Rounded cosines are not quite at right angles; the column is kept, as ITK does.
    return np.stack([np.cross(column, normal), column, normal])


def affine(position: Sequence[float], directions: Floats, spacing: Sequence[float], step: float) -> Floats:
    """`(4, 4)` voxel (column, row, slice) -> RAS+ mm.

    Args:
        position: LPS, mm: centre of the first pixel of the first slice.
        directions: As `axes` gives them.
        spacing: mm between rows, between columns.
        step: mm between slices.
    """
    lps = np.eye(4)
    lps[:3, 0] = directions[0] * spacing[1]
    lps[:3, 1] = directions[1] * spacing[0]
    lps[:3, 2] = directions[2] * step
    lps[:3, 3] = position
    turned: Floats = _LPS_TO_RAS @ lps
    return turned


def plane(directions: Floats) -> str:
    """The plane that the slices are nearest to."""
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(directions[2])))]


def places(along: Sequence[float], apart: float = 0.01) -> list[int]:
    """The number of each slice's place along the normal, from 0; slices nearer than `apart` mm share a place."""
    order = np.argsort(along, kind="stable")
    found = [0] * len(along)
    place = 0
    for before, index in itertools.pairwise(order):
        place += float(along[index]) - float(along[before]) > apart
        found[index] = place
    return found


@dataclass(frozen=True)
class Spacing:
    """How slices follow one another.

    Attributes:
        step: mean distance in mm.
        off: Largest share of the step by which a slice lies off its place.
        missing: How many slices the gaps could hold; 0 if the gaps are none.
        drift: mm by which the last slice is moved within its plane against the first.
        scatter: mm by which a slice is moved within its plane against that drift.
    """

    step: float
    off: float
    missing: int
    drift: float
    scatter: float


def spacing(positions: Floats, directions: Floats) -> Spacing:
    """The spacing of at least two slices, sorted along the normal.

    Args:
        positions: `(n, 3)` LPS, mm.
        directions: As `axes` gives them.
    """
    along = positions @ directions[2]
    steps = np.diff(along)
    mean = float(along[-1] - along[0]) / len(steps)
    usual = float(np.median(steps))
    number = np.arange(len(along))
    worst = float(np.abs(along - along[0] - mean * number).max())
    beside = positions - positions[0] - np.outer(along - along[0], directions[2])
    drift = beside[-1]
    scatter = np.linalg.norm(beside - np.outer(number / len(steps), drift), axis=1).max()
    gaps = np.rint(steps / usual) - 1
    filled = np.abs(steps / usual - gaps - 1) <= UNEVEN
    missing = int(gaps.sum()) if filled.all() else 0
    off = 0.0 if worst <= ROUNDED else worst / mean
    return Spacing(mean, off, missing, float(np.linalg.norm(drift)), float(scatter))


def to_ras(array: NDArray[np.generic], matrix: Floats) -> tuple[NDArray[np.generic], Floats]:
    """`array` (X, Y, Z) with its axes turned and flipped to the nearest RAS+ order, and its affine; a view."""
    turn = nib.orientations.io_orientation(matrix)  # type: ignore[no-untyped-call]
    turned = nib.orientations.apply_orientation(array, turn)  # type: ignore[no-untyped-call]
    moved = matrix @ nib.orientations.inv_ornt_aff(turn, array.shape)  # type: ignore[no-untyped-call]
    return turned, np.asarray(moved, dtype=np.float64)
