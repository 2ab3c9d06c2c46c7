"""Whether a mask would fit its image better mirrored or shifted.

The boundary of a mask lies where the image changes. How well is measured as the mean absolute difference of the
intensities on its two sides (voxel by voxel across the boundary, and one voxel farther inside; geometric mean of
both). The same is asked of the mirrored mask and of masks shifted along one axis, with the very same boundary.
"""

from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Boundary faces looked at per axis: the mean of more does not change.
_FACES = 4_000
# With fewer the mean is chance: a cube of three voxels has 54.
_FEWEST = 50
# Voxels by which the mask is shifted, and in units of 1/64 of an axis where that is more than a voxel.
_SHIFTS = (3, 4, 5, 6, 7, 8)


class Edges(TypedDict):
    """How much better (natural logarithm of the ratio) other places of the mask fit than its own.

    `flips`: mirrored along each axis, about the middle of the field of view; `alike`: Dice of the mask with its mirror
    image. `shift`: the best shift along one axis; `along`: that axis; `by`: voxels.
    """

    flips: list[float]
    alike: list[float]
    shift: float
    along: int
    by: int


class _Boundary(NamedTuple):
    """Faces across one axis: the voxel inside `(N, dims)`, and which way (±1) outside lies."""

    axis: int
    inside: NDArray[np.int64]
    outward: NDArray[np.int64]


# One channel of the image, and the intensities that count as 0 and 1.
_Channel = tuple[NDArray[np.float32], float, float]


def edges(image: NDArray[np.float32], truth: NDArray[np.uint8], labels: int) -> Edges | None:
    """How well the mask of all labels fits `image` (C, *S); None if it has (nearly) no boundary.

    Args:
        image: As read.
        truth: `(*S)`, see `summary.summarise`.
        labels: Number of the study's labels.
    """
    mask = (truth >= 1) & (truth <= labels)
    boundaries = _boundaries(mask)
    if sum(len(b.inside) for b in boundaries) < _FEWEST:
        return None
    unit, shape = [(channel, *_ends(channel)) for channel in image], np.array(mask.shape)
    own = _fit(unit, boundaries, shape)
    flips = [_gain(_fit(unit, boundaries, shape, flip=axis), own) for axis in range(mask.ndim)]
    shifts = [(_gain(_fit(unit, boundaries, shape, along=axis, by=by), own), axis, by)
              for axis in range(mask.ndim) for by in _shifts(mask.shape[axis])]  # fmt: skip
    best = max(shifts)
    count = int(mask.sum())
    alike = [float((mask & np.flip(mask, axis)).sum() / count) for axis in range(mask.ndim)]
    return {"flips": flips, "alike": alike, "shift": best[0], "along": best[1], "by": best[2]}


def _shifts(n: int) -> list[int]:
    """Voxels, both ways, along an axis of `n`."""
    near = {by * unit for by in _SHIFTS for unit in {1, max(1, n // 64)}}
    return sorted(near | {-by for by in near})


def _ends(channel: NDArray[np.float32]) -> tuple[float, float]:
    """The 1st and the 99th percentile, which count as 0 and 1."""
    low, high = np.percentile(channel.reshape(-1)[:: max(1, channel.size // 2**18)], [1, 99])
    return float(low), float(max(high, low + 1e-9))


def _boundaries(mask: NDArray[np.bool_]) -> list[_Boundary]:
    box = ndimage.find_objects(mask.astype(np.uint8), max_label=1)[0] or (slice(0, 0),) * mask.ndim
    wide = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    start, inner, found = np.array([part.start for part in wide]), mask[wide].astype(np.int8), []
    for axis in range(mask.ndim):
        step = np.diff(inner, axis=axis)
        lower = np.argwhere(step)
        lower = lower[:: max(1, len(lower) // _FACES)]
        entering = step[tuple(lower.T)] > 0
        lower = lower + start
        lower[entering, axis] += 1
        found.append(_Boundary(axis, lower, np.where(entering, -1, 1)))
    return found


def _fit(image: list[_Channel], boundaries: list[_Boundary], shape: NDArray[np.int64], flip: int | None = None,
         along: int = 0, by: int = 0) -> float:  # fmt: skip
    """Mean difference across the faces, the mask mirrored along `flip` or shifted; NaN if too few lie in the image."""
    near, far = [], []
    for axis, inside, outward in boundaries:
        outside, deeper = inside.copy(), inside.copy()
        outside[:, axis] += outward
        deeper[:, axis] -= outward
        places = np.stack([inside, outside, deeper])
        if flip is not None:
            places[:, :, flip] = shape[flip] - 1 - places[:, :, flip]
        places[:, :, along] += by
        within = ((places >= 0) & (places < shape)).all(axis=(0, 2))
        voxels = tuple(np.moveaxis(places[:, within], -1, 0))
        for channel, low, high in image:
            values = np.clip((channel[voxels] - low) / (high - low), 0, 1)
            near.append(np.abs(values[0] - values[1]))
            far.append(np.abs(values[2] - values[1]))
    first, second = np.concatenate(near), np.concatenate(far)
    if 2 * first.size < len(image) * sum(len(b.inside) for b in boundaries):
        return float("nan")
    return float(np.sqrt(first.mean() * second.mean()))


def _gain(other: float, own: float) -> float:
    # Where nothing can be said of the other place, it is no better.
    return float(np.log((other + 1e-6) / (own + 1e-6))) if np.isfinite(other) and np.isfinite(own) else -10.0
