"""FedProx: FedAvg whose sites are held near the global weights while they train."""

from typing import Annotated

from pydantic import Field

from common.wire import Terms
from server.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """Sites minimise F_k(w) + μ/2‖w − w_global‖² (Li et al. 2020, equation 2, arXiv 1812.06127).

    Args:
        mu: Strength of the pull; 0 is FedAvg.
    """

    def __init__(self, *, mu: Annotated[float, Field(ge=0, le=1000)] = 0.01) -> None:
        self._mu = mu

    def terms(self) -> Terms:
        """The proximal term, which the site's own training loop adds."""
        return Terms(proximal=self._mu)
