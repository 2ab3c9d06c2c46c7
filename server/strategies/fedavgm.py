"""FedAvgM: the mean change of the sites, with momentum at the server."""

from typing import Annotated

import numpy as np
from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Flat
from server.aggregation import parameter_places, weighted_mean
from server.strategies.base import Fold, Strategy


@described(
    StrategyCard(
        title="FedAvgM (server momentum)",
        source="Hsu et al. 2019, arXiv 1909.06335",
        suited="unlike sites, many short rounds: what differs from round to round cancels out",
        equation="Δ = Σ n_k w_k / Σ n_k − w;  v ← β v + Δ;  w ← w + η v",
        server="v, one model",
    )
)
class FedAvgM(Strategy):
    """v ← β v + Δ, w ← w + η v; Δ is the weighted mean of the sites' changes.

    A steady Δ adds up to η / (1 − β) times FedAvg's step, which is 1 by default; more of it overshoots where rounds are
    few. Parameters only: running statistics are those of the mean.

    Args:
        momentum: β; 0 with rate 1 is FedAvg.
        rate: η.
    """

    def __init__(
        self, *, momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5, rate: Annotated[float, Field(gt=0, le=10)] = 0.5
    ) -> None:
        self._momentum, self._rate = momentum, rate

    def fold(self, fold: Fold) -> Flat:
        """The next global weights; keeps `momentum`."""
        result = weighted_mean(fold.schema, fold.replies, fold.weights)
        new, base = result["float32"], fold.base["float32"]
        kept = fold.memory.setdefault("momentum", {"float32": np.zeros_like(base)})["float32"]
        for place in parameter_places(fold.schema):
            old = base[place].astype(np.float64)
            velocity = self._momentum * kept[place].astype(np.float64) + (new[place] - old)
            kept[place], new[place] = velocity, old + self._rate * velocity
        return result
