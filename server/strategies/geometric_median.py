"""The geometric median of the sites' weights: robust, and no coordinate is looked at by itself."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Flat
from server.aggregation import weighted_mean
from server.robust import coordinatewise, median, products
from server.strategies.base import Fold, Strategy

MOST, TOLERANCE = 10_000, 1e-9  # steps, and the relative change of the coefficients at which they end


def coefficients(inner: NDArray[np.float64], weights: Sequence[float], smoothing: float) -> NDArray[np.float64]:
    """By which mean of the points the sum of weighted distances to them is smallest: smoothed Weiszfeld.

    Each step's point is a mean z = Σ c_k x_k of the points, so ‖z − x_k‖² = cᵀGc − 2 (Gc)_k + G_kk follows from their
    inner products G alone; the points are not looked at again.

    Args:
        inner: G, of shape (K, K).
        weights: α, of the points.
        smoothing: ν: a distance counts as at least this.

    Returns:
        c, of shape (K,), with the sum 1.
    """
    alpha = np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64)
    now = alpha
    for _ in range(MOST):
        along = inner @ now
        away = np.sqrt(np.maximum(now @ along - 2 * along + np.diag(inner), 0))
        pulled = alpha / np.maximum(away, smoothing)
        before, now = now, pulled / pulled.sum()
        # Relative: a point that lies far off has a tiny coefficient, which still moves the result far.
        if (np.abs(now - before) <= TOLERANCE * now).all():
            break
    return now


@described(
    StrategyCard(
        title="Geometric median (RFA)",
        source="Pillutla et al. 2022, IEEE Transactions on Signal Processing 70, Algorithm 1, arXiv 1912.13445",
        suited="sites with less than half of the weight may be wrong in any way; kinder to unlike sites than medians",
        equation="w ← argmin_z Σ n_k ‖z − w_k‖, by steps z ← Σ β_k w_k / Σ β_k with β_k = n_k / max(ν, ‖z − w_k‖)",
    )
)
class GeometricMedian(Strategy):
    """w ← argmin_z Σ n_k ‖z − w_k‖ over the parameters, by Weiszfeld's steps with smoothing ν.

    The steps need nothing but the inner products of the sites' changes, which one pass over the spool gives; they go on
    until the point stays (the paper makes few steps, each of which asks all sites). Running statistics are medians,
    each number by itself: a pooled variance would grow with the square of what a wrong site says.

    Args:
        smoothing: ν, the smallest distance that counts; the paper's 1e-6.
    """

    def __init__(self, *, smoothing: Annotated[float, Field(gt=0, le=1)] = 1e-6) -> None:
        self._smoothing = smoothing

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        found = coefficients(products(fold), fold.weights, self._smoothing)
        result = weighted_mean(fold.schema, fold.replies, [float(c) for c in found])
        return coordinatewise(fold, median, ("buffer",), result)
