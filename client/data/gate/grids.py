"""Whether the files of a case fit each other and the study: channels, dimensions, one voxel grid."""

import itertools
from collections.abc import Sequence

import numpy as np

from client.data.gate.codes import finding
from client.data.volume import Case, Finding, Source, Volume

# Share of the smallest voxel size by which two files of one case may lie apart: header rounding, not a real shift.
GRID_TOLERANCE = 0.1


def check_channels(case: Case, images: Sequence[Volume], channels: int) -> list[Finding]:
    """`channels`: the case's files do not hold as many channels as the study has."""
    found = sum(image.array.shape[0] for image in images)
    if found == channels:
        return []
    files = ", ".join(str(p) for p in case.images)
    return [finding("channels", case.id, f"{files}: {found} image channel(s), the study has {channels}")]


def check_dimensions(case: Case, path: Source, volume: Volume, dimensions: int) -> list[Finding]:
    """`dimensions`: a picture in a study of volumes, or the reverse."""
    found = volume.array.ndim - 1
    if found == dimensions:
        return []
    what = f"{path}: {found} dimensions {volume.array.shape[1:]}, the study has {dimensions}"
    return [finding("dimensions", case.id, what)]


def check_grid(case: Case, path: Source, volume: Volume, reference: Volume, code: str) -> list[Finding]:
    """`label-grid` or `image-grid`: not the voxel grid of the case's (first) image.

    Two grids of one shape are farthest apart at a corner, so the corners decide, not the numbers of the affines: a
    voxel size that is off by a thousandth is nothing in a thick slab, and a voxel across a long scan.
    """
    shape, expected = volume.array.shape[1:], reference.array.shape[1:]
    if shape != expected:
        return [finding(code, case.id, f"{path}: shape {shape}, the image's is {expected}")]
    apart, tolerance = _apart(volume, reference), GRID_TOLERANCE * min(reference.spacing)
    if apart <= tolerance:
        return []
    what = f"{path}: same shape as the image but another place, up to {apart:.3g} mm apart (at most {tolerance:.3g} mm)"
    return [finding(code, case.id, what)]


def _apart(volume: Volume, reference: Volume) -> float:
    """Largest distance in mm between the centres of the same corner voxel (eight; four of a picture) of two grids."""
    shape = volume.array.shape[1:]
    corners = np.ones((2 ** len(shape), 4))
    corners[:, :3] = 0
    corners[:, : len(shape)] = list(itertools.product(*((0, n - 1) for n in shape)))
    apart = corners @ (volume.affine - reference.affine).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())
