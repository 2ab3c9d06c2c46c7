"""Krum: the weights of the one site that lies closest to others."""

from common.cards import StrategyCard, described
from common.wire import Flat
from server.strategies.base import Fold, Strategy
from server.strategies.multi_krum import Faulty, mean_of_best


@described(
    StrategyCard(
        title="Krum",
        source="Blanchard et al. 2017, NeurIPS, arXiv 1703.02757",
        suited="as a comparison: safe against a few wrong sites, but learns from one site per round",
        equation="w ← the w_k with the smallest sum of its K − f − 2 smallest ‖w_k − w_j‖²",
    )
)
class Krum(Strategy):
    """w ← w_k of the site with the lowest score, the sum of its K − f − 2 smallest ‖w_k − w_j‖², bit for bit.

    Args:
        faulty: f, how many sites may be wrong; the guarantee wants K ≥ 2f + 3.
    """

    def __init__(self, *, faulty: Faulty = 1) -> None:
        self._faulty = faulty

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        return mean_of_best(fold, self._faulty, keep=1)
