"""FedPer: the body of the net is averaged, each site has its own head."""

from common.cards import StrategyCard, described
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="FedPer",
        source="Arivazhagan et al. 2019, Algorithm 1, arXiv 1912.00818",
        suited="sites that draw the structures differently",
        equation="w = (body, head_k): body ← Σ n_k body_k / Σ n_k",
        site="its head",
        sent="less than the weights: what stays at the site is not sent",
    )
)
class FedPer(FedAvg):
    """The head stays at the site; the body is averaged.

    Everything is trained together. The head is the layers that make the classes, with deep supervision all of them.
    A site that was never in training has none of its own.
    """
