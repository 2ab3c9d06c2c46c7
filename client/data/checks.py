"""The quality gate: what is wrong with a case, said with file and remedy. Pure functions."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client.data.labels import LabelMap
from client.data.preprocess import Meta
from client.data.volume import Case, Finding, Source, Volume

# Share of the smallest voxel size by which two files of one case may lie apart: header rounding, not a real shift.
GRID_TOLERANCE = 0.1
# mm; microscopy and thick localisers lie outside, and most wrong units do.
PLAUSIBLE_SPACING = (0.02, 20.0)


def check_case(case: Case, images: Sequence[Volume], label: Volume, channels: int, dimensions: int,
               labels: LabelMap) -> list[Finding]:  # fmt: skip
    """Every error of one labelled case.

    Args:
        case: Names the files.
        images: One volume per file of `case.images`.
        label: The volume of `case.label`.
        channels: Number of image channels of the study.
        dimensions: 2 or 3.
        labels: The site's label rules.
    """
    findings = check_channels(case, images, channels)
    for path, image in zip(case.images, images, strict=True):
        findings += check_dimensions(case, path, image, dimensions)
        findings += check_values(case, path, image)
        if image is not images[0]:
            findings += check_grid(case, path, image, images[0], "image-grid")
    path = case.label or Path()
    findings += check_dimensions(case, path, label, dimensions)
    findings += check_grid(case, path, label, images[0], "label-grid")
    return findings + check_label(case, path, label, labels)


def warnings(case: Case, meta: Meta, labels: Sequence[str]) -> list[Finding]:
    """What is odd about a prepared case that can be used, from its `meta` and the names of the study's labels."""
    findings = check_spacing(case, meta["own"]["spacing"]) + check_empty(case, meta["voxels"])
    return findings + check_lost(case, meta["voxels"], meta["plan_voxels"], labels)


def check_channels(case: Case, images: Sequence[Volume], channels: int) -> list[Finding]:
    """`channels`: the case's files do not hold as many channels as the study has."""
    found = sum(image.array.shape[0] for image in images)
    if found == channels:
        return []
    files = ", ".join(str(p) for p in case.images)
    what = f"{files}: {found} image channel(s), the study has {channels}"
    return [
        _error("channels", case, what, "Give one file per channel of the study, in its order, or one file with all.")
    ]


def check_dimensions(case: Case, path: Source, volume: Volume, dimensions: int) -> list[Finding]:
    """`dimensions`: a picture in a study of volumes, or the reverse."""
    found = volume.array.ndim - 1
    if found == dimensions:
        return []
    what = f"{path}: {found} dimensions {volume.array.shape[1:]}, the study has {dimensions}"
    return [
        _error("dimensions", case, what, "Leave the file out, or take it to a study with data.dimensions fitting it.")
    ]


def check_values(case: Case, path: Source, image: Volume) -> list[Finding]:
    """`not-finite`: NaN, infinity or more than float32 holds. `constant`: a channel in which all voxels are equal."""
    with np.errstate(over="ignore"):
        bad = int(image.array.size - np.isfinite(image.array.astype(np.float32, copy=False)).sum())
    if bad:
        what = f"{path}: {bad} voxels are NaN, infinite or too large for float32"
        return [_error("not-finite", case, what, "Export the scan again, or replace them with the background's value.")]
    flat = image.array.reshape(image.array.shape[0], -1)
    empty = [str(c) for c in range(flat.shape[0]) if flat[c].min() == flat[c].max()]
    if not empty:
        return []
    what = f"{path}: channel {', '.join(empty)} is empty (all voxels are equal)"
    return [_error("constant", case, what, "Export the scan again; the file holds no picture.")]


def check_spacing(case: Case, spacing: Sequence[float]) -> list[Finding]:
    """`spacing`: a voxel size that no scanner makes; probably wrong units. Pictures have none."""
    low, high = PLAUSIBLE_SPACING
    if len(spacing) == 2 or all(low <= s <= high for s in spacing):
        return []
    what = f"{case.images[0]}: voxel size {_numbers(spacing)} mm is implausible (expected {low:g} to {high:g})"
    return [_warning("spacing", case, what, "Check the units in the header; NIfTI files should say millimetres.")]


def check_empty(case: Case, voxels: Sequence[int]) -> list[Finding]:
    """`label-empty`: no voxel of any label."""
    if any(voxels):
        return []
    remedy = "Right if the structure is truly absent; else annotate the case."
    return [_warning("label-empty", case, f"{case.label}: no voxel has a label", remedy)]


def check_lost(case: Case, own: Sequence[int], plan: Sequence[int], labels: Sequence[str]) -> list[Finding]:
    """`label-lost`: a label has voxels in the file but none on the plan's grid, which is too coarse for it."""
    lost = [name for name, before, after in zip(labels, own, plan, strict=True) if before and not after]
    if not lost:
        return []
    what = f"{case.label}: {', '.join(lost)} is too small for the plan's grid and vanishes on it"
    return [_warning("label-lost", case, what, "Choose a finer plan.spacing or plan.size, or leave the case out.")]


def check_grid(case: Case, path: Source, volume: Volume, reference: Volume, code: str) -> list[Finding]:
    """`label-grid` or `image-grid`: not the voxel grid of the case's (first) image.

    Two grids of one shape are farthest apart at a corner, so the corners decide, not the numbers of the affines: a
    voxel size that is off by a thousandth is nothing in a thick slab, and a voxel across a long scan.
    """
    remedy = (
        "Resample it to the image's grid (nearest neighbour for labels), or find the file that belongs to the image."
    )
    shape, expected = volume.array.shape[1:], reference.array.shape[1:]
    if shape != expected:
        return [_error(code, case, f"{path}: shape {shape}, the image's is {expected}", remedy)]
    apart, tolerance = _apart(volume, reference), GRID_TOLERANCE * min(reference.spacing)
    if apart <= tolerance:
        return []
    what = f"{path}: same shape as the image but another place, up to {apart:.3g} mm apart (at most {tolerance:.3g} mm)"
    return [_error(code, case, what, remedy)]


def check_label(case: Case, path: Path, label: Volume, labels: LabelMap) -> list[Finding]:
    """`label-channels`, `label-value` (a stored value that no rule covers), `label-nothing` (all is `data.ignore`)."""
    if label.array.shape[0] != 1:
        what = f"{path}: the label map has {label.array.shape[0]} channels"
        return [_error("label-channels", case, what, "Save it as one channel in which each number is one structure.")]
    unknown = labels.unknown(label.array)
    if unknown:
        shown = _numbers(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        remedy = "Say in the site file under `labels` which stored values belong to which label, or mend the file."
        return [_error("label-value", case, f"{path}: unknown label value(s) {shown}", remedy)]
    if labels.nothing_labelled(label.array):
        what = f"{path}: every voxel has the value {labels.ignore}, which means not labelled (data.ignore of the study)"
        return [_error("label-nothing", case, what, "Annotate some of it, or leave the case out.")]
    return []


def no_label(case: Case) -> Finding:
    """`no-label`: the case cannot be trained or judged on."""
    files = ", ".join(str(p) for p in case.images)
    return _warning("no-label", case, f"{files}: no label file", "Annotate the case; until then it is left out.")


def unreadable(case: Case, error: Exception) -> Finding:
    """`unreadable`: a reader refused a file; its message names file and remedy."""
    what, _, remedy = str(error).partition(". ")
    return _error("unreadable", case, what, remedy or "Copy or export the file again.")


def duplicate(case: Case, first: Case) -> Finding:
    """`duplicate`: the image of another patient's case, voxel for voxel; it could stand in training and test."""
    what = f"{case.images[0]}: the same image as {first.images[0]}, but of patient {case.patient}, not {first.patient}"
    return _error("duplicate", case, what, "Remove one of the two, or give both the same patient.")


def _apart(volume: Volume, reference: Volume) -> float:
    """Largest distance in mm between the centres of the same corner voxel (eight; four of a picture) of two grids."""
    shape = volume.array.shape[1:]
    corners = np.ones((2 ** len(shape), 4))
    corners[:, :3] = 0
    corners[:, : len(shape)] = list(itertools.product(*((0, n - 1) for n in shape)))
    apart = corners @ (volume.affine - reference.affine).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _error(code: str, case: Case, what: str, remedy: str) -> Finding:
    return Finding(code, "error", case.id, what, remedy)


def _warning(code: str, case: Case, what: str, remedy: str) -> Finding:
    return Finding(code, "warning", case.id, what, remedy)
