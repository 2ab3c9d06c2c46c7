"""What robust strategies have in common: all sites' values side by side, a slice at a time, and sites' distances."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.schema import Kind
from common.wire import Flat
from server.strategies.base import Fold

Middle = Callable[[NDArray[Any]], NDArray[Any]]  # (sites, values) -> (values,)
STACK = 1 << 22  # values held at a time over all sites: 16 MB of fp32


def stacked(fold: Fold, dtype: str, kind: Kind) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Every value of `kind`, as (place, rows): one row per reply. The more sites, the shorter the slices."""
    for place in fold.schema.places(kind, dtype, longest=max(1, STACK // len(fold.replies))):
        yield place, np.stack([r.read(dtype, place.start, place.stop) for r in fold.replies])


def products(fold: Fold, kind: Kind = "parameter") -> NDArray[np.float64]:
    """Inner products ⟨w_i − w, w_j − w⟩ of the sites' changes, of shape (sites, sites), in one pass over the spool.

    Of the changes and in float64: products of whole weights would leave little of the differences of nearly equal
    models.
    """
    total = np.zeros((len(fold.replies), len(fold.replies)))
    for place, rows in stacked(fold, "float32", kind):
        changes = rows - fold.base["float32"][place].astype(np.float64)
        total += changes @ changes.T
    return total


def squared_distances(inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """‖x_i − x_j‖² from the inner products of the x."""
    norms = np.diag(inner)
    distances: NDArray[np.float64] = np.maximum(norms[:, None] + norms - 2 * inner, 0)
    np.fill_diagonal(distances, 0)
    return distances


def coordinatewise(fold: Fold, middle: Middle, kinds: Sequence[Kind], into: Flat) -> Flat:
    """Put `middle` of the sites' values, each coordinate by itself, into `into`, for the entries of `kinds`."""
    for dtype, values in into.items():
        for kind in kinds:
            for place, rows in stacked(fold, dtype, kind):
                values[place] = middle(rows)
    return into


def empty(fold: Fold) -> Flat:
    """Arrays of the schema's sizes, not filled."""
    return {dtype: np.empty(n, dtype) for dtype, n in fold.schema.sizes.items()}


def median(rows: NDArray[Any]) -> NDArray[Any]:
    """The median over the rows; of counters the lower one of the two in the middle."""
    if rows.dtype.kind == "i":
        half = (len(rows) - 1) // 2
        counter: NDArray[Any] = np.partition(rows, half, axis=0)[half]
        return counter
    middle: NDArray[Any] = np.median(rows, axis=0)
    return middle
