"""FedDyn: each site's loss is bent so that the sites' optima and the global one become the same."""

from typing import Annotated

import numpy as np
from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Flat, Terms
from server.aggregation import parameter_places, weighted_mean
from server.strategies.base import Fold, Strategy
from server.strategies.standing import standing


@described(
    StrategyCard(
        title="FedDyn (dynamic regularisation)",
        source="Acar et al. 2021, ICLR, Algorithm 1, arXiv 2111.04263",
        suited="unlike sites and long rounds; α is tried over 0.01 … 1: with too small a one the server overshoots",
        equation="site: F_k(w) − ⟨h_k, w⟩ + α/2 ‖w − w_global‖²; server: h ← h − α Σ p_k (w_k − w), "
        "w ← Σ p_k w_k − h / α",
        server="h, one model",
        site="h_k, one model",
    )
)
class FedDyn(Strategy):
    """Site k minimises F_k(w) − ⟨h_k, w⟩ + α/2‖w − w_global‖², then h_k ← h_k − α (w_k − w_global).

    The server keeps h ← h − α Σ p_k (w_k − w_global), the weighted mean of all h_k, and w ← Σ p_k w_k − h / α. The
    first sum goes over the sites of the round but with the weights of all sites that ever replied, the second over
    those of the round alone; equal weights are the paper's. Running statistics are those of the mean.

    With few and adaptive steps the sites' terms of a small α count for little, and the server's sum of all changes goes
    too far. Validation Dice on chest X-rays, one seed: 0.942 after 15 rounds with α = 0.1 and 0.918 with α = 1 (FedAvg:
    0.946), 0.941 after 30 rounds with α = 0.01 (FedAvg: 0.956).

    Args:
        alpha: α.
    """

    def __init__(self, *, alpha: Annotated[float, Field(gt=0, le=1000)] = 0.1) -> None:
        self._alpha = alpha

    def terms(self, round: int) -> Terms:
        """The site's linear and quadratic term."""
        return Terms(dynamic=self._alpha)

    def fold(self, fold: Fold) -> Flat:
        """The next global weights; keeps `h` and `weights`."""
        before, all_sites, here = standing(fold)
        result = weighted_mean(fold.schema, fold.replies, fold.weights)
        new, base = result["float32"], fold.base["float32"]
        kept = fold.memory.setdefault("h", {"float32": np.zeros_like(base)})["float32"]
        for place in parameter_places(fold.schema):
            mean = new[place].astype(np.float64)
            change = mean - base[place]
            # Sites that are new have h_k = 0: the mean over all of them shrinks.
            h = kept[place].astype(np.float64) * (before / all_sites) - self._alpha * (here / all_sites) * change
            kept[place], new[place] = h, mean - h / self._alpha
        return result
