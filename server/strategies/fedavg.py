"""FedAvg: the weighted mean of the sites' weights."""

from collections.abc import Sequence

from common.wire import Flat, Schema, Terms
from server.aggregation import weighted_mean
from server.spool import Reply


class FedAvg:
    """w ← Σ n_k w_k / Σ n_k (McMahan et al. 2017, Algorithm 1, arXiv 1602.05629)."""

    def terms(self) -> Terms:
        """What the sites add to their local training: nothing."""
        return Terms()

    def fold(self, schema: Schema, replies: Sequence[Reply], weights: Sequence[float]) -> Flat:
        """The next global weights from the spooled replies, in roster order."""
        return weighted_mean(schema, replies, weights)
