"""FedAdagrad: a server whose steps shrink by all the changes that a parameter has seen."""

from typing import Annotated

from pydantic import Field

from common.cards import StrategyCard, described
from server.strategies.fedopt import FedOpt, Values


@described(
    StrategyCard(
        title="FedAdagrad",
        source="Reddi et al. 2021, ICLR, Algorithm 2, arXiv 2003.00295",
        suited="many rounds without a schedule: the steps become smaller by themselves",
        equation="v ← v + Δ²;  w ← w + η Δ / (√v + τ)",
        server="v, one model",
    )
)
class FedAdagrad(FedOpt):
    """v ← v + Δ², w ← w + η Δ / (√v + τ).

    Args:
        rate: η, the largest step of a parameter in one round.
        beta1: Decay of the mean change; the paper's experiments take 0, no momentum.
        tau: Changes much smaller than it are not scaled up.
    """

    def __init__(
        self,
        *,
        rate: Annotated[float, Field(gt=0, le=10)] = 0.05,
        beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        tau: Annotated[float, Field(gt=0, le=1)] = 0.01,
    ) -> None:
        super().__init__(rate, beta1, tau)

    def second(self, v: Values, squared: Values) -> Values:
        """v + Δ²."""
        return v + squared
