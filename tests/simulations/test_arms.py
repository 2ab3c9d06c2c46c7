"""What the rows of a comparison are called."""

from typing import Any

import pytest

from simulations.arms import methods
from tests.simulations.conftest import toy_study


@pytest.mark.parametrize(
    ("strategy", "title"),
    [
        ("fedavg", "FedAvg"),
        ("fedprox", "FedProx (μ = 0.01)"),
        ({"name": "fedprox", "mu": 0.1}, "FedProx (μ = 0.1)"),
        ({"name": "krum", "faulty": 0}, "Krum (faulty = 0)"),
        ("feddg_ga", "FedDG-GA"),
        ({"name": "flower", "strategy": "FedAdam", "eta": 0.1}, "Flower's own (strategy = FedAdam, eta = 0.1)"),
    ],
)
def test_a_strategy_s_title_tells_what_is_unusual(strategy: Any, title: str) -> None:
    assert [m.title for m in methods([toy_study(strategy=strategy).strategy]) if m.kind == "federated"] == [title]
