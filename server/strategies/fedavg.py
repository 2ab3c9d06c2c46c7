"""FedAvg: the weighted mean of the sites' weights."""

from common.cards import StrategyCard, described
from common.wire import Flat
from server.aggregation import weighted_mean
from server.strategies.base import Fold, Strategy


@described(
    StrategyCard(
        title="FedAvg (federated averaging)",
        source="McMahan et al. 2017, AISTATS, Algorithm 1, arXiv 1602.05629",
        suited="the start: few settings, hard to beat where sites are alike",
        equation="w ← Σ n_k w_k / Σ n_k",
    )
)
class FedAvg(Strategy):
    """w ← Σ n_k w_k / Σ n_k; n_k is the site's weight as `rounds.weights` says.

    Running variances of batch normalisation are pooled with the spread of the sites' means, counters take the largest.
    """

    def fold(self, fold: Fold) -> Flat:
        """The weighted mean, in roster order."""
        return weighted_mean(fold.schema, fold.replies, fold.weights)
