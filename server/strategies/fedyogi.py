"""FedYogi: FedAdam whose second moment changes by steps that do not depend on its size."""

from typing import Annotated

import numpy as np
from pydantic import Field

from common.cards import StrategyCard, described
from server.strategies.fedopt import FedOpt, Values


@described(
    StrategyCard(
        title="FedYogi",
        source="Reddi et al. 2021, ICLR, Algorithm 2, arXiv 2003.00295",
        suited="as FedAdam, with rare large changes: the steps recover more slowly after them, and safely",
        equation="m ← β₁ m + (1 − β₁) Δ;  v ← v − (1 − β₂) Δ² sign(v − Δ²);  w ← w + η m / (√v + τ)",
        server="m and v, two models",
    )
)
class FedYogi(FedOpt):
    """v ← v − (1 − β₂) Δ² sign(v − Δ²), w ← w + η m / (√v + τ).

    Args:
        rate: η, about the step of a parameter whose changes are large and steady; a sudden one, and the first,
            moves it by up to (1 − β₁) / √(1 − β₂) η in one round.
        beta1: Decay of the mean change; the paper takes 0.9, over hundreds of rounds.
        beta2: How fast v follows Δ².
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
        """v − (1 − β₂) Δ² sign(v − Δ²)."""
        moved: Values = v - (1 - self._beta2) * squared * np.sign(v - squared)
        return moved
