"""Boxes cut from a scan, and the one rule for what lies around a scan. Training and inference share both."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[np.int64]


def smallest(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest value of each channel `(C,)` of `(C, *S)`: what surrounds a scan, as air surrounds a patient."""
    least: NDArray[np.float32] = np.array(image.reshape(len(image), -1).min(axis=1))
    return least


def clamp(corner: Voxels, room: Voxels) -> Voxels:
    """`corner` moved so that the box lies in the scan; where the scan is smaller, the scan lies in the box's middle.

    Args:
        corner: First voxel of the box.
        room: Size of the scan minus size of the box.
    """
    clamped: Voxels = np.where(room < 0, room // 2, np.clip(corner, 0, np.maximum(room, 0)))
    return clamped


def cut(array: NDArray[Any], corner: Voxels, size: Voxels, around: NDArray[Any]) -> NDArray[Any]:
    """A copy of the box `(C, *size)` at `corner` of `array` `(C, *S)`, filled with `around` `(C,)` outside of it."""
    shape = np.array(array.shape[1:])
    low, high = np.clip(corner, 0, shape), np.clip(corner + size, 0, shape)
    inside = array[:, *_slices(low, high)]
    if (high - low == size).all():
        return np.array(inside)
    box = np.empty((len(array), *size), array.dtype)
    box[:] = around.reshape(-1, *(1,) * len(size))
    box[:, *_slices(low - corner, high - corner)] = inside
    return box


def inner(corner: Voxels, shape: Voxels) -> tuple[slice, ...]:
    """Where a scan of `shape` lies in a box that was cut at `corner` and holds all of it."""
    return _slices(-corner, shape - corner)


def _slices(low: Voxels, high: Voxels) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
