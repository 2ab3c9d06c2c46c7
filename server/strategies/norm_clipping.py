"""Norm clipping: no site may change the model by more than others do."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import StrategyCard, described
from common.schema import Kind
from common.wire import Flat
from server import aggregation
from server.aggregation import weighted_mean
from server.spool import Reply
from server.strategies.base import Fold, Strategy

KINDS: tuple[Kind, ...] = ("parameter", "buffer")


@dataclass(frozen=True)
class Clipped(Reply):
    """A reply whose changes from `base` are made smaller as it is read."""

    base: NDArray[np.float32] | None = None
    factors: tuple[tuple[slice, float], ...] = ()

    def read(self, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """Elements `start` … `stop` of the flat array of `dtype`; float64 where something is clipped."""
        values = super().read(dtype, start, stop)
        if dtype != "float32" or self.base is None or all(factor == 1 for _, factor in self.factors):
            return values
        result = values.astype(np.float64)
        for place, factor in self.factors:
            first, last = max(place.start, start), min(place.stop, stop)
            if first < last and factor < 1:
                here = slice(first - start, last - start)
                old = self.base[first:last].astype(np.float64)
                result[here] = old + factor * (result[here] - old)
        return result


@described(
    StrategyCard(
        title="Norm clipping",
        source="Sun et al. 2019, arXiv 1911.07963",
        suited="sites that may send far too large updates; it bounds a site that pulls the wrong way, no more",
        equation="w ← w + Σ n_k min(1, c / ‖w_k − w‖) (w_k − w) / Σ n_k",
    )
)
class NormClipping(Strategy):
    """w ← w + Σ n_k min(1, c / ‖Δ_k‖) Δ_k / Σ n_k with Δ_k = w_k − w.

    Changes of running statistics are clipped likewise, by a norm of their own and to the median of the round: they are
    of other sizes than parameters.

    Args:
        norm: c; none: the median of the round's norms, so that half of the sites are clipped.
    """

    def __init__(self, *, norm: Annotated[float, Field(gt=0, le=1e9)] | None = None) -> None:
        self._norm = norm

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        norms = {kind: [_change(fold, reply, kind) for reply in fold.replies] for kind in KINDS}
        limits = {kind: float(np.median(found)) for kind, found in norms.items()}
        if self._norm is not None:
            limits["parameter"] = self._norm
        places = {kind: list(fold.schema.places(kind)) for kind in KINDS}
        clipped = []
        for i, reply in enumerate(fold.replies):
            factors = {kind: min(1.0, limits[kind] / norms[kind][i]) if norms[kind][i] else 1.0 for kind in KINDS}
            whole = tuple((place, factors[kind]) for kind in KINDS for place in places[kind])
            clipped.append(Clipped(**vars(reply), base=fold.base["float32"], factors=whole))
        return weighted_mean(fold.schema, clipped, fold.weights)


def _change(fold: Fold, reply: Reply, kind: Kind) -> float:
    """‖w_k − w‖ over the entries of `kind`."""
    total = 0.0
    for place in fold.schema.places(kind, longest=aggregation.SLICE):
        old = fold.base["float32"][place].astype(np.float64)
        change = reply.read("float32", place.start, place.stop) - old
        total += float(change @ change)
    return math.sqrt(total)
