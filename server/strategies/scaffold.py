"""SCAFFOLD: control variates take out of each site's gradients what pulls it away from the others."""

from typing import Annotated

import numpy as np
from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Flat
from server import aggregation
from server.aggregation import parameter_places, weighted_mean
from server.strategies.base import Fold, Strategy
from server.strategies.standing import standing


@described(
    StrategyCard(
        title="SCAFFOLD",
        source="Karimireddy et al. 2020, ICML, Algorithm 1, arXiv 1910.06378",
        suited="unlike sites that take part in every round, many local steps",
        equation="site: g ← g − c_k + c; server: w ← w + η Σ p_k (w_k − w), c ← c + Σ p_k (c_k⁺ − c_k)",
        server="c, one model, which is part of the global weights' file",
        site="c_k, one model",
        sent="one model more each way: c down, c_k⁺ − c_k up",
    )
)
class Scaffold(Strategy):
    """g ← g − c_k + c at site k; w ← w + η Σ p_k (w_k − w); c ← c + Σ p_k (c_k⁺ − c_k).

    c_k⁺ is the mean of the site's gradients in the round, which with plain SGD at one rate is the paper's option II,
    c_k − c + (w − w_k) / (Tη). Both sums go over the sites of the round. In the first p_k = n_k / Σ n over those; in
    the second the n of all sites that ever replied is summed, so that c stays the weighted mean of their c_k while some
    are away. A site that comes later starts from c_k = c, the paper's 0 in round 1.

    Args:
        rate: η.
    """

    def __init__(self, *, rate: Annotated[float, Field(gt=0, le=10)] = 1.0) -> None:
        self._rate = rate

    def fold(self, fold: Fold) -> Flat:
        """The next global weights and c; keeps `weights`."""
        _, all_sites, here = standing(fold)
        result = weighted_mean(fold.schema, fold.replies, fold.weights)
        new, base = result["float32"], fold.base["float32"]
        for place in fold.schema.places("control", longest=aggregation.SLICE):
            new[place] = base[place] + here / all_sites * new[place].astype(np.float64)
        for place in parameter_places(fold.schema) if self._rate != 1 else ():
            old = base[place].astype(np.float64)
            new[place] = old + self._rate * (new[place] - old)
        return result
