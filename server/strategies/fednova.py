"""FedNova: sites that did more steps have no larger say because of it."""

import numpy as np

from common.cards import StrategyCard, described
from common.study_training import Training
from common.wire import Flat
from server.aggregation import parameter_places, weighted_mean
from server.strategies.base import Fold, Strategy


def effective_steps(training: Training, steps: float) -> float:
    """‖a‖₁: by how many times the rate a site's weights move when `steps` gradients of 1 follow each other.

    For SGD with Nesterov momentum ρ, a gradient that m − 1 others follow moves the weights by (1 − ρ^(m+1)) / (1 − ρ)
    times the rate, so ‖a‖₁ = Σ_{m=1…τ} (1 − ρ^(m+1)) / (1 − ρ) = (τ − ρ² (1 − ρ^τ) / (1 − ρ)) / (1 − ρ). That is with
    moments that begin each round at zero (`optimizer_state: reset`). Where they are kept a round goes on at full speed,
    each step moves the weights by 1 / (1 − ρ), and as only ratios between sites count ‖a‖₁ = τ. AdamW's steps have the
    rate's size whatever the gradient, so for it ‖a‖₁ = τ, too. The paper derives neither.
    """
    if training.optimizer != "sgd" or training.optimizer_state == "keep":
        return steps
    rho = training.momentum
    return float((steps - rho**2 * (1 - rho**steps) / (1 - rho)) / (1 - rho))


@described(
    StrategyCard(
        title="FedNova",
        source="Wang et al. 2020, NeurIPS, arXiv 2007.07481",
        suited="sites that do different numbers of steps: `training.epochs` with unlike numbers of cases",
        equation="w ← w + τ_eff Σ p_k (w_k − w) / ‖a_k‖₁,  τ_eff = Σ p_k ‖a_k‖₁,  p_k = n_k / Σ n_k",
    )
)
class FedNova(Strategy):
    """w ← w + τ_eff Σ p_k (w_k − w) / ‖a_k‖₁ with τ_eff = Σ p_k ‖a_k‖₁.

    ‖a_k‖₁ comes from the steps that site k says it did: for SGD with the momentum of `training.momentum` (Nesterov's)
    by its closed form, for AdamW and for moments that are kept the number of steps. Where all sites do as many steps it
    is FedAvg. Running statistics are those of the weighted mean.
    """

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        shares = np.asarray(fold.weights, np.float64) / np.sum(fold.weights, dtype=np.float64)
        steps = np.array([effective_steps(fold.study.training, r.metrics["steps"]) for r in fold.replies])
        if np.ptp(steps) == 0:
            return weighted_mean(fold.schema, fold.replies, fold.weights)
        pace = float(shares @ steps)
        result = weighted_mean(fold.schema, fold.replies, fold.weights)
        new, base = result["float32"], fold.base["float32"]
        for place in parameter_places(fold.schema):
            old = base[place].astype(np.float64)
            change = np.zeros_like(old)
            for reply, factor in zip(fold.replies, pace * shares / steps, strict=True):
                change += factor * (reply.read("float32", place.start, place.stop) - old)
            new[place] = old + change
        return result
