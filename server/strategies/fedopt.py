"""What FedAdagrad, FedAdam and FedYogi have in common: a server that steps like an adaptive optimiser."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from common.wire import Flat
from server.aggregation import parameter_places, weighted_mean
from server.strategies.base import Fold, Strategy

Values = NDArray[np.float64]


class FedOpt(Strategy):
    """m ← β₁ m + (1 − β₁) Δ, w ← w + η m / (√v + τ) (Reddi et al. 2021, Algorithm 2, arXiv 2003.00295).

    Δ is the weighted mean of the sites' changes, and v begins at τ², as the paper wants it. There is no bias
    correction, which the paper has not either. Parameters only: running statistics are those of the mean, because a
    variance that an optimiser moves may become negative.
    """

    def __init__(self, rate: float, beta1: float, tau: float) -> None:
        self._rate, self._beta1, self._tau = rate, beta1, tau

    @abstractmethod
    def second(self, v: Values, squared: Values) -> Values:
        """The new v from the old one and Δ²."""

    def fold(self, fold: Fold) -> Flat:
        """The next global weights; keeps `first` (unless β₁ is 0) and `second`, the moments m and v."""
        result = weighted_mean(fold.schema, fold.replies, fold.weights)
        new, base = result["float32"], fold.base["float32"]
        kept_v = fold.memory.setdefault("second", {"float32": np.full_like(base, self._tau**2)})["float32"]
        kept_m = None
        if self._beta1:
            kept_m = fold.memory.setdefault("first", {"float32": np.zeros_like(base)})["float32"]
        for place in parameter_places(fold.schema):
            old = base[place].astype(np.float64)
            change = new[place] - old
            v = self.second(kept_v[place].astype(np.float64), change**2)
            m = change
            if kept_m is not None:
                m = self._beta1 * kept_m[place].astype(np.float64) + (1 - self._beta1) * change
                kept_m[place] = m
            kept_v[place], new[place] = v, old + self._rate * m / (np.sqrt(v) + self._tau)
        return result
