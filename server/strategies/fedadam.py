"""FedAdam: Adam at the server, over the sites' mean change."""

from typing import Annotated

from pydantic import Field

from common.cards import StrategyCard, described
from server.strategies.fedopt import FedOpt, Values


@described(
    StrategyCard(
        title="FedAdam",
        source="Reddi et al. 2021, ICLR, Algorithm 2, arXiv 2003.00295",
        suited="parameters whose changes differ much in size; rate and tau want a search",
        equation="m ← β₁ m + (1 − β₁) Δ;  v ← β₂ v + (1 − β₂) Δ²;  w ← w + η m / (√v + τ)",
        server="m and v, two models",
    )
)
class FedAdam(FedOpt):
    """v ← β₂ v + (1 − β₂) Δ², w ← w + η m / (√v + τ).

    v begins at τ² and forgets it slowly: where changes are small beside τ a step is at first η/(2τ) of FedAvg's (with
    momentum β₁), where they are large and steady it comes to about η.
    Flower's FedAdam also corrects the bias of the moments (Kingma & Ba), and begins with v = 0; the paper does neither.

    Args:
        rate: η, about the step of a parameter whose changes are large and steady; a sudden one, and the first,
            moves it by up to (1 − β₁) / √(1 − β₂) η in one round.
        beta1: Decay of the mean change; the paper takes 0.9, over hundreds of rounds.
        beta2: Decay of its square.
        tau: Changes much smaller than it are not scaled up.
    """

    def __init__(
        self,
        *,
        rate: Annotated[float, Field(gt=0, le=10)] = 0.03,
        beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99,
        tau: Annotated[float, Field(gt=0, le=1)] = 0.01,
    ) -> None:
        super().__init__(rate, beta1, tau)
        self._beta2 = beta2

    def second(self, v: Values, squared: Values) -> Values:
        """β₂ v + (1 − β₂) Δ²."""
        return self._beta2 * v + (1 - self._beta2) * squared
