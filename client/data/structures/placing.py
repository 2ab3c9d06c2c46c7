"""Where the voxels of one grid lie in another that is parallel to it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.data.structures.model import Mask, Misfit

# Of the smaller voxel size: what decimals in headers and turned orientations may displace a corner of the grid.
TOLERANCE = 0.1
# Voxels by which a grid of equal voxels may lie beside the other; farther, which voxel is nearest is a toss-up.
BESIDE = 0.25
_RESAMPLE = "Resample it to the image's grid (nearest neighbour), or find the file that was drawn on this image."

_Affine = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the patient.

    Attributes:
        affine: `(4, 4)` voxel index -> RAS+ mm.
        shape: Number of voxels along each axis.
    """

    affine: _Affine
    shape: tuple[int, ...]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def voxels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(N, 3)` points in RAS+ mm as voxel coordinates."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3])


@dataclass(frozen=True)
class Placing:
    """For each voxel of a target grid the nearest voxel of a source grid.

    Attributes:
        axes: For each source axis the target's axis along which it lies.
        indices: For each source axis: the source index of each target index along that axis, −1 where there is none.
        outside: For each source axis: which of its indices lie outside the target.
        apart: For each source axis, how far target centres lie from the centres that they take, at most, in voxels.
        same: For each source axis: both grids have voxels of one size along it.
    """

    axes: tuple[int, ...]
    indices: tuple[_Indices, ...]
    outside: tuple[Mask, ...]
    apart: tuple[float, ...]
    same: tuple[bool, ...]

    @property
    def exact(self) -> bool:
        """Every voxel lies on a voxel of the other grid."""
        return all(self.same) and max(self.apart) <= TOLERANCE

    def put(self, source: Mask, out: Mask) -> None:
        """Set the voxels of `out` (target) whose nearest voxel of `source` is set."""
        within = [slice(None)] * 3
        taken = []
        for axis, index in zip(self.axes, self.indices, strict=True):
            known = np.flatnonzero(index >= 0)
            if not known.size:
                return
            within[axis] = slice(int(known[0]), int(known[-1]) + 1)
            taken.append(index[within[axis]])
        # Neighbours that stay neighbours are a view, which is much faster than to pick them one by one.
        runs = [_run(index) for index in taken]
        found = source[tuple(runs)] if None not in runs else source[np.ix_(*taken)]
        there = out[tuple(within)]
        np.logical_or(there, found.transpose(np.argsort(self.axes)), out=there)

    def loses(self, source: Mask) -> bool:
        """Whether `source` is set anywhere outside the target."""
        return any(
            bool(source.compress(outside, axis=axis).any())
            for axis, outside in enumerate(self.outside)
            if outside.any()
        )


def place(source: Grid, target: Grid) -> Placing:
    """How `source` lies in `target`: the nearest voxel along each axis.

    Raises:
        Misfit: The grids are not parallel, or have voxels of one size and lie between each other's.
    """
    joint = np.linalg.inv(source.affine) @ target.affine
    axes = tuple(int(a) for a in np.argmax(np.abs(joint[:3, :3]), axis=1))
    if sorted(axes) != [0, 1, 2]:
        raise _not_parallel()
    rest = joint[:3, :3].copy()
    rest[range(3), axes] = 0
    displaced = np.abs(rest) @ (np.array(target.shape) - 1) * source.spacing
    if (displaced > TOLERANCE * min(source.spacing.min(), target.spacing.min())).any():
        raise _not_parallel()
    centre = rest @ (np.array(target.shape) - 1) / 2
    indices, outside, apart, same = [], [], [], []
    for own, axis in enumerate(axes):
        scale, offset = joint[own, axis], joint[own, 3] + centre[own]
        exact = scale * np.arange(target.shape[axis]) + offset
        index = np.floor(exact + 0.5).astype(np.int64)
        known = (index >= 0) & (index < source.shape[own])
        back = np.floor((np.arange(source.shape[own]) - offset) / scale + 0.5)
        indices.append(np.where(known, index, -1))
        outside.append((back < 0) | (back >= target.shape[axis]))
        apart.append(float(np.abs(exact - index)[known].max(initial=0)))
        same.append(bool(abs(abs(scale) - 1) * max(source.shape[own] - 1, 1) <= TOLERANCE))
    beside = max((a for a, equal in zip(apart, same, strict=True) if equal), default=0.0)
    if beside > BESIDE:
        what = f"the label's voxels are as large as the image's but lie {beside:.2g} of a voxel beside them"
        raise Misfit("label-grid", what, _RESAMPLE)
    return Placing(axes, tuple(indices), tuple(outside), tuple(apart), tuple(same))


def _run(index: _Indices) -> slice | None:
    """`index` as a slice, if it counts up or down by one."""
    first, last = int(index[0]), int(index[-1])
    step = 1 if last >= first else -1
    if len(index) != abs(last - first) + 1 or (np.diff(index) != step).any():
        return None
    return slice(first, last + step if last + step >= 0 else None, step)


def _not_parallel() -> Misfit:
    return Misfit("label-grid", "the label's grid is turned against the image's", _RESAMPLE)
