"""Polygons to pixels, exactly."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.data.structures.model import Mask

# In pixels: vertices so near to pixels' centres lie on them, as contours come as decimals of a hundredth of a mm.
ON_CENTRE = 0.01

_Points = NDArray[np.float64]
_Indices = NDArray[np.int64]


def fill(polygons: Sequence[_Points], shape: tuple[int, int]) -> Mask:
    """The pixels whose centre lies in the region that `polygons` enclose by the even-odd rule.

    Areas inside two of the polygons are out, so holes may be contours of their own or keyholes. A centre exactly on an
    edge counts if the region lies on its side of higher coordinates: polygons that share an edge share no pixel, and
    areas are right on the mean. Polygons with every vertex on a pixel's centre are another thing: outlines that were
    traced along the border pixels of a mask (OpenCV, rt-utils). Their border is in, which gives that mask again, holes
    included.

    Args:
        polygons: `(N, 2)` vertices each, closed by themselves, in pixels: the centre of pixel (i, j) is (i, j).
        shape: Of the picture; what lies outside is cut off.

    Returns:
        `shape` bool.
    """
    start = np.concatenate(polygons)
    low = np.maximum(np.floor(start.min(axis=0)).astype(np.int64) - 1, 0)
    high = np.minimum(np.ceil(start.max(axis=0)).astype(np.int64) + 2, shape)
    out = np.zeros(shape, dtype=bool)
    if (high <= low).any():
        return out
    box = (int(high[0] - low[0]), int(high[1] - low[1]))
    found = _inside(*_edges(polygons, low), box)
    traced = [polygon for polygon in polygons if np.abs(polygon - np.rint(polygon)).max() <= ON_CENTRE]
    if traced:
        start, end = _edges(traced, low)
        found |= _border(start, end, box) | _border(start[:, ::-1], end[:, ::-1], box[::-1]).T
    out[low[0] : high[0], low[1] : high[1]] = found
    return out


def _edges(polygons: Sequence[_Points], origin: _Indices) -> tuple[_Points, _Points]:
    """Both ends of all edges, from `origin`."""
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    return start - origin, end - origin


def _inside(start: _Points, end: _Points, shape: tuple[int, int]) -> Mask:
    """Even-odd by lines along axis 0, one through each row of centres; an edge owns its lower end."""
    lower, upper = _by_row(start, end)
    edge, row = _rows(np.ceil(lower[:, 1]), np.ceil(upper[:, 1]) - 1, shape[1])
    crossing = np.ceil(_along(lower[edge], upper[edge], row)).astype(np.int64)
    # Centres from the crossing on change sides.
    crossing = np.clip(crossing, 0, shape[0])
    toggles = np.bincount(crossing * shape[1] + row, minlength=(shape[0] + 1) * shape[1]) & 1
    parity = np.bitwise_xor.accumulate(toggles.reshape(shape[0] + 1, shape[1]).astype(np.uint8), axis=0)
    return parity[: shape[0]].astype(bool)


def _border(start: _Points, end: _Points, shape: tuple[int, int]) -> Mask:
    """Centres on an edge, seen along the rows; edges along a row are found by the same look along the columns."""
    lower, upper = _by_row(start, end)
    edge, row = _rows(np.ceil(lower[:, 1] - ON_CENTRE), np.floor(upper[:, 1] + ON_CENTRE), shape[1])
    near = np.clip(row, lower[edge, 1], upper[edge, 1])
    place = _along(lower[edge], upper[edge], near)
    column = np.rint(place).astype(np.int64)
    on = (np.abs(place - column) <= ON_CENTRE) & (column >= 0) & (column < shape[0])
    out = np.zeros(shape, dtype=bool)
    out[column[on], row[on]] = True
    return out


def _by_row(start: _Points, end: _Points) -> tuple[_Points, _Points]:
    """Both ends of each edge, the one of the lower row first, so that an edge walked both ways is the same edge."""
    swapped = (start[:, 1] > end[:, 1])[:, np.newaxis]
    return np.where(swapped, end, start), np.where(swapped, start, end)


def _rows(first: _Points, last: _Points, number: int) -> tuple[_Indices, _Indices]:
    """Each edge's index and each row from `first` to `last` that it meets within 0 … `number` − 1."""
    begin = np.clip(first, 0, number).astype(np.int64)
    count = np.maximum(np.clip(last, -1, number - 1).astype(np.int64) + 1 - begin, 0)
    edge = np.repeat(np.arange(len(begin)), count)
    before = np.repeat(np.cumsum(count) - count, count)
    return edge, begin[edge] + np.arange(len(edge)) - before


def _along(lower: _Points, upper: _Points, row: _Points | _Indices) -> _Points:
    """Where edges meet `row`; edges along the row at their lower end."""
    height = upper[:, 1] - lower[:, 1]
    share = np.divide(row - lower[:, 1], height, out=np.zeros_like(height), where=height > 0)
    return np.asarray(lower[:, 0] + share * (upper[:, 0] - lower[:, 0]))
