"""FedRep: as FedPer, but a round first fits each site's head to the body that came, then the body to the head."""

from typing import Annotated

from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Terms
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="FedRep",
        source="Collins et al. 2021, ICML, Algorithm 1, arXiv 2102.07078",
        suited="sites that draw the structures differently, and few cases at each",
        equation="site: first head_k on F_k with the body fixed, then the body with head_k fixed; "
        "body ← Σ n_k body_k / Σ n_k",
        site="its head",
        sent="less than the weights: the head is not sent",
    )
)
class FedRep(FedAvg):
    """The head stays at the site and is trained alone first, then the body alone, which is averaged.

    Running statistics of batch normalisation follow the batches in both parts. A site that was never in training has
    no head of its own.

    Args:
        head: Share of a round's steps that are the head's.
    """

    def __init__(self, *, head: Annotated[float, Field(gt=0, lt=1)] = 0.5) -> None:
        self._head = head

    def terms(self, round: int) -> Terms:
        """The head first."""
        return Terms(head=self._head)
