"""FedProx: FedAvg whose sites are held near the global weights while they train."""

from typing import Annotated

from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Terms
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="FedProx",
        source="Li et al. 2020, MLSys, equation 2, arXiv 1812.06127",
        suited="unlike sites, or many local steps; μ is tried over 0.001 … 0.1, and it can also hurt",
        equation="site k minimises F_k(w) + μ/2 ‖w − w_global‖²; then as FedAvg",
    )
)
class FedProx(FedAvg):
    """Sites minimise F_k(w) + μ/2‖w − w_global‖².

    Args:
        mu: Strength of the pull; 0 is FedAvg.
    """

    def __init__(self, *, mu: Annotated[float, Field(ge=0, le=1000)] = 0.01) -> None:
        self._mu = mu

    def terms(self, round: int) -> Terms:
        """The proximal term, which the site's own training loop adds."""
        return Terms(proximal=self._mu)
