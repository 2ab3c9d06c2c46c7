"""MOON: each site's features are drawn to the global net's and away from those of its own last one."""

from typing import Annotated

from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Terms
from server.strategies.fedavg import FedAvg


@described(
    StrategyCard(
        title="MOON (model-contrastive)",
        source="Li et al. 2021, CVPR, equations 3 and 4, arXiv 2103.16257",
        suited="sites whose pictures look unlike; a step costs three passes through the net instead of one",
        equation="site: F_k(w) + μ ℓ, ℓ = −log(exp(s_g/τ) / (exp(s_g/τ) + exp(s_p/τ))); then as FedAvg",
        site="its net as it was after the last round, one model",
    )
)
class Moon(FedAvg):
    """Sites minimise F_k(w) + μ ℓ with ℓ = −log(exp(s_g/τ) / (exp(s_g/τ) + exp(s_p/τ))).

    s_g and s_p are the cosines between the net's features and those of the global net and of the site's net after its
    last round. Features are what goes into the head, averaged over the patch: the paper classifies whole pictures.

    Args:
        mu: μ; 0 is FedAvg.
        temperature: τ.
    """

    def __init__(
        self,
        *,
        mu: Annotated[float, Field(ge=0, le=1000)] = 1.0,
        temperature: Annotated[float, Field(gt=0, le=100)] = 0.5,
    ) -> None:
        self._mu, self._temperature = mu, temperature

    def terms(self, round: int) -> Terms:
        """The contrastive term."""
        return Terms(contrast=self._mu, temperature=self._temperature)
