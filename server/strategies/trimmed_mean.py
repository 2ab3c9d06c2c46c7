"""The mean of the sites' weights without the largest and the smallest, each number by itself."""

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Flat
from server.robust import coordinatewise, empty
from server.strategies.base import Fold, Strategy


@described(
    StrategyCard(
        title="Trimmed mean (coordinate-wise)",
        source="Yin et al. 2018, ICML, Option II, arXiv 1803.01498",
        suited="a known share of the sites may be wrong; keeps more of the honest ones than the median",
        equation="w_i ← mean of w_k,i without the β K largest and the β K smallest",
    )
)
class TrimmedMean(Strategy):
    """w_i ← mean over the sites of w_k,i, without the ⌊β K⌋ largest and as many smallest; at least one each from three.

    Every site counts alike, whatever `rounds.weights` says, and running statistics are trimmed means too. "At least
    one" is ours: with three or four sites the default would trim nothing, and one wrong site be free to do anything.

    Args:
        trim: β, the share that is left out at either end: at least the share of sites that may be wrong.
    """

    def __init__(self, *, trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2) -> None:
        self._trim = trim

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        sites = len(fold.replies)
        cut = math.floor(self._trim * sites + 1e-9)
        if self._trim and sites >= 3:
            cut = max(cut, 1)
        return coordinatewise(fold, lambda rows: _trimmed(rows, cut), ("parameter", "buffer"), empty(fold))


def _trimmed(rows: NDArray[Any], cut: int) -> NDArray[Any]:
    if rows.dtype.kind == "i":
        largest: NDArray[Any] = np.partition(rows, len(rows) - cut - 1, axis=0)[len(rows) - cut - 1]
        return largest
    kept = np.partition(rows, (cut, len(rows) - cut - 1), axis=0)[cut : len(rows) - cut] if cut else rows
    mean: NDArray[Any] = kept.mean(axis=0, dtype=np.float64)
    return mean
