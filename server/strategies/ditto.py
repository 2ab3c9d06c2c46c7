"""Ditto: FedAvg, and beside it a personal model at each site that is held near the global one."""

from typing import Annotated

from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Terms
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="Ditto",
        source="Li et al. 2021, ICML, Algorithm 1, arXiv 2012.04221",
        suited="sites that the global model does not suit; training takes twice as long",
        equation="site: v_k minimises F_k(v) + λ/2 ‖v − w_global‖²; w as FedAvg",
        site="v_k and its optimiser, up to three models",
    )
)
class Ditto(FedAvg):
    """Site k trains, beside what it sends, a v_k that minimises F_k(v) + λ/2‖v − w_global‖² and never leaves.

    The global model is FedAvg's, bit for bit. The personal one is a candidate where `evaluation.own` lets each site
    choose the model that it ends with. It trains as many steps of a round as the global one, on the same batches.

    Args:
        pull: λ: near 0 the personal model is the site's own, large it is the global one.
    """

    def __init__(self, *, pull: Annotated[float, Field(gt=0, le=1000)] = 0.1) -> None:
        self._pull = pull

    def terms(self, round: int) -> Terms:
        """The personal model's pull."""
        return Terms(personal=self._pull)
