"""A case on the plan's grid, and the way back to the grid of its own files.

Conventions: index 0 is the centre of the first voxel. The two grids share the centre of their fields of view, and the
plan's grid has as many voxels of the plan's size as fit best. Images and labels are interpolated linearly; the label
of a voxel is the one with the largest interpolated share. Before coarser sampling the array is smoothed with a
Gaussian of (step - 1) / 2 voxels (the rule of scikit-image's `resize`), so that fine detail does not alias. Beyond
the outermost voxel centres the border value is repeated.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.data.gate.summary import Summary
from client.data.volume import Volume
from common.errors import DataError
from common.study_plan import Intensity, Percentile, Plan, Window

Floats = NDArray[np.float32]

# Voxels of one channel on the plan's grid; more is a wrong spacing, not a scan.
MAX_VOXELS = 2**30
# Steps this near to 1 are header rounding; the array is then taken as it is.
_SAME_STEP = 1e-4


class Grid(TypedDict):
    """A voxel grid as JSON: shape, 4 x 4 affine (index -> RAS+ mm), spacing in mm."""

    shape: list[int]
    affine: list[list[float]]
    spacing: list[float]


class Grids(TypedDict):
    """The grid of a case's own files, and that on which the net sees it."""

    own: Grid
    plan: Grid


class Meta(Grids):
    """What is kept beside a case's arrays; names no file and no patient.

    `image` is the SHA-256 of the scan's voxels, the same in whatever file they lie (`prepare.fingerprint`), `content`
    that of the scan's and the label's. `voxels` counts the voxels of each of the study's labels on the case's own grid,
    `plan_voxels` on the plan's. `gate` is what the quality gate wants to know of the case (`gate.summary`).
    `unlabelled` are labels that the site does not annotate; `notes` are code, words and remedy of what was odd about
    the label file.
    """

    image: str
    content: str
    voxels: list[int]
    plan_voxels: list[int]
    unlabelled: list[str]
    notes: list[list[str]]
    gate: Summary


def grid(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The grid of `shape` voxels (spatial axes only) under `affine`."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[: len(shape)]
    return {"shape": [int(n) for n in shape], "affine": affine.tolist(), "spacing": spacing.tolist()}


def plan_grid(volume: Volume, plan: Plan) -> Grid:
    """The grid on which the net sees `volume`.

    Raises:
        DataError: The plan's spacing would make a grid of absurd size.
    """
    shape = np.array(volume.array.shape[1:])
    if plan.size is not None:
        new = np.array(plan.size)
        step = shape / new
    elif plan.spacing is not None:
        step = np.array(plan.spacing) / np.array(volume.spacing)
        new = np.maximum(np.floor(shape / step + 0.5).astype(np.int64), 1)
    else:
        step, new = np.ones(len(shape)), shape
    same = (np.abs(step - 1) < _SAME_STEP) & (new == shape)
    step = np.where(same, 1.0, step)
    if np.prod(new, dtype=np.float64) > MAX_VOXELS:
        raise DataError(f"the plan's grid would have {' x '.join(map(str, new))} voxels. Check the file's voxel size.")
    move = np.eye(4)
    n = len(shape)
    move[range(n), range(n)] = step
    move[:n, 3] = (shape - 1) / 2 - step * (new - 1) / 2
    return grid(tuple(new.tolist()), volume.affine @ move)


def normalise(image: Floats, rules: Intensity | tuple[Intensity, ...]) -> Floats:
    """`image` (C, *S) with each channel's intensities mapped by its rule (one rule serves all channels)."""
    each = rules if isinstance(rules, tuple) else (rules,) * image.shape[0]
    return np.stack([_normalise(channel, rule) for channel, rule in zip(image, each, strict=True)])


def _normalise(channel: Floats, rule: Intensity) -> Floats:
    if isinstance(rule, Window):
        return _to_unit(channel, rule.low, rule.high)
    if isinstance(rule, Percentile):
        low, high = np.percentile(channel, [rule.low, rule.high])
        if high <= low:
            # Nearly all voxels are equal (a large background): the whole range is all there is.
            low, high = channel.min(), channel.max()
        return _to_unit(channel, float(low), float(high))
    chosen = channel != 0 if rule.nonzero else np.ones(channel.shape, dtype=bool)
    values = channel[chosen].astype(np.float64)
    if values.size == 0:
        return channel
    mean, deviation = values.mean(), values.std()
    out = (channel - mean) / (deviation if deviation > 0 else 1.0)
    return np.where(chosen, out, 0.0).astype(np.float32)


def _to_unit(channel: Floats, low: float, high: float) -> Floats:
    scale = 2.0 / (high - low) if high > low else 0.0
    unit: Floats = np.clip((channel - low) * scale - 1.0, -1.0, 1.0).astype(np.float32)
    return unit


def resample(array: Floats, source: Grid, target: Grid) -> Floats:
    """`array` (C, *S) on `source` as (C, *T) on `target`; the two grids must be parallel."""
    shape = tuple(target["shape"])
    step, start = _between(source, target)
    if shape == array.shape[1:] and np.allclose(step, 1) and np.allclose(start, 0, atol=1e-6):
        return np.ascontiguousarray(array, dtype=np.float32)
    out = np.empty((array.shape[0], *shape), dtype=np.float32)
    sigma = np.maximum(0.0, (step - 1) / 2)
    for channel, result in zip(array, out, strict=True):
        smooth = ndimage.gaussian_filter(channel, sigma, mode="nearest", output=np.float32) if sigma.any() else channel
        ndimage.affine_transform(smooth, step, start, output_shape=shape, output=result, order=1, mode="nearest")
    return out


def resample_label(label: NDArray[np.uint8], source: Grid, target: Grid) -> NDArray[np.uint8]:
    """`label` (*S) on `source` as (*T) on `target`: each voxel takes the label with the largest interpolated share."""
    if source == target:
        return label
    values = np.unique(label)
    best = np.full(tuple(target["shape"]), -1.0, dtype=np.float32)
    out = np.zeros(best.shape, dtype=np.uint8)
    for value in values:
        share = resample((label == value).astype(np.float32)[np.newaxis], source, target)[0]
        larger = share > best
        out[larger] = value
        best[larger] = share[larger]
    return out


def restore(array: Floats, meta: Grids) -> Floats:
    """Class scores or probabilities (K, *S) on the plan's grid as (K, *own shape) on the case's own RAS+ grid."""
    return resample(array, meta["plan"], meta["own"])


def _between(source: Grid, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Step and start, per axis and in voxels of `source`, of `target`'s voxel centres."""
    n = len(target["shape"])
    move = np.linalg.inv(np.array(source["affine"])) @ np.array(target["affine"])
    return np.diag(move)[:n].copy(), move[:n, 3].copy()
