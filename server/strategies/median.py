"""The median of the sites' weights, each number by itself, which a minority of wrong sites cannot move far."""

from common.cards import StrategyCard, described
from common.wire import Flat
from server.robust import coordinatewise, empty, median
from server.strategies.base import Fold, Strategy


@described(
    StrategyCard(
        title="Median (coordinate-wise)",
        source="Yin et al. 2018, ICML, Option I, arXiv 1803.01498",
        suited="fewer than half of the sites may be wrong in any way; slow where honest sites are unlike",
        equation="w_i ← median_k w_k,i",
    )
)
class Median(Strategy):
    """w_i ← median over the sites of w_k,i; every site counts alike, whatever `rounds.weights` says.

    With an even number of sites it is the mean of the two in the middle. Running statistics are medians too, because
    a wrong site's would spoil a mean: the spread between the sites' means is not in them. With one or two sites it is
    their plain mean.
    """

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        return coordinatewise(fold, median, ("parameter", "buffer"), empty(fold))
