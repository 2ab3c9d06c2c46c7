"""FedNova: torch's own optimiser says what ‖a‖₁ is, and the minimum of a quadratic is where rounds must end."""

import numpy as np
import pytest
import torch

from server.strategies.fednova import effective_steps


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_effective_steps_are_how_far_torchs_sgd_goes_on_gradients_of_one(study_of, momentum, steps) -> None:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum, nesterov=momentum > 0)
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    training = study_of(optimizer="sgd", momentum=momentum, optimizer_state="reset").training
    assert effective_steps(training, steps) == pytest.approx(-weight.item(), rel=1e-9)


@pytest.mark.parametrize("steps", [3, 50])
def test_with_moments_that_are_kept_every_step_of_torchs_sgd_goes_equally_far(study_of, steps) -> None:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9, nesterov=True)
    went = []
    for _ in range(400):
        start = weight.item()
        for _ in range(steps):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        went.append(start - weight.item())
    training = study_of(optimizer="sgd", momentum=0.9, optimizer_state="keep").training
    assert went[-1] / effective_steps(training, steps) == pytest.approx(10, rel=1e-9)


def test_adamw_counts_steps(study_of) -> None:
    assert effective_steps(study_of().training, 17) == 17


def test_ends_at_the_minimum_where_fedavg_follows_who_did_most_steps(sites, strategy, study_of) -> None:
    """For small rates the fixed points are known: Σ p a b / Σ p a, and for FedAvg the same with p τ for p."""
    a, b, n, tau, rate = (
        np.array([1, 2, 4.0]),
        np.array([3, -1, 0.5]),
        np.array([1, 3, 6.0]),
        np.array([1, 5, 20]),
        1e-3,
    )
    study = study_of(optimizer="sgd", momentum=0.0)

    def ends(name: str) -> float:
        run, by, w = sites(1, study), strategy(name), 2.0
        for _ in range(160):  # each closes about 4 % of the distance
            replies = [[x] for x in b + (1 - rate * a) ** tau * (w - b)]
            w = float(run.fold(by, [w], replies, list(n), [{"steps": float(t)} for t in tau])[0])
        return w

    assert ends("fednova") == pytest.approx((n * a * b).sum() / (n * a).sum(), abs=0.02)
    assert ends("fedavg") == pytest.approx((n * tau * a * b).sum() / (n * tau * a).sum(), abs=0.02)


def test_one_round_by_hand(sites, strategy, study_of) -> None:
    """p = ¼, ¾; steps 2, 6; changes 4, 12 per site: τ_eff = 5, and 5 (¼·4/2 + ¾·12/6) = 10."""
    study = study_of(optimizer="sgd", momentum=0.0)
    result = sites(1, study).fold(strategy("fednova"), [1.0], [[5.0], [13.0]], [1, 3], [{"steps": 2.0}, {"steps": 6.0}])
    assert result.tolist() == [11.0]


def test_equal_steps_are_fedavg_bit_for_bit(sites, strategy) -> None:
    replies = np.random.default_rng(0).normal(size=(3, 300)).astype("float32")
    base = np.zeros(300, "float32")
    average = sites(300).fold(strategy("fedavg"), base, replies, [1, 2, 3])
    assert sites(300).fold(strategy("fednova"), base, replies, [1, 2, 3]).tobytes() == average.tobytes()
