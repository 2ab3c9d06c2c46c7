"""Server optimisers: hand-computed rounds on a quadratic, and Flower's own classes where they do the same."""

import math

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from common.wire import Entry, Schema

# f_i(w) = a_i/2 (w − b_i)²; a gradient step of rate η takes w to b + (1 − η a)(w − b).
A, B, N = (1.0, 2.0, 4.0), (3.0, -1.0, 0.5), (10.0, 30.0, 60.0)
RATE, STEPS, ROUNDS = 0.1, 3, 4


def trained(w: float) -> list[float]:
    return [b + (1 - RATE * a) ** STEPS * (w - b) for a, b in zip(A, B, strict=True)]


def change(w: float) -> float:
    """Δ, the weighted mean of the sites' changes."""
    return sum(n * (x - w) for n, x in zip(N, trained(w), strict=True)) / sum(N)


def by_hand(name: str, w: float) -> float:
    m = v = 0.0
    if name != "fedavgm":
        v = 0.05**2
    for _ in range(ROUNDS):
        d = change(w)
        if name == "fedavgm":
            m = 0.7 * m + d
            w += 0.5 * m
            continue
        beta1 = 0.0 if name == "fedadagrad" else 0.8
        m = beta1 * m + (1 - beta1) * d
        if name == "fedadagrad":
            v = v + d**2
        elif name == "fedadam":
            v = 0.95 * v + 0.05 * d**2
        else:
            v = v - 0.05 * d**2 * math.copysign(1.0, v - d**2)
        w += 0.3 * m / (math.sqrt(v) + 0.05)
    return w


OPTIONS = {
    "fedavgm": {"momentum": 0.7, "rate": 0.5},
    "fedadagrad": {"rate": 0.3, "tau": 0.05},
    "fedadam": {"rate": 0.3, "beta1": 0.8, "beta2": 0.95, "tau": 0.05},
    "fedyogi": {"rate": 0.3, "beta1": 0.8, "beta2": 0.95, "tau": 0.05},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_rounds_on_a_quadratic_are_those_of_the_paper(sites, strategy, name: str) -> None:
    run, by, w = sites(1), strategy(name, **OPTIONS[name]), np.array([2.0], "float32")
    for _ in range(ROUNDS):
        w = run.fold(by, w, [[x] for x in trained(float(w[0]))], N)
    assert float(w[0]) == pytest.approx(by_hand(name, 2.0), rel=1e-5)


def test_momentum_zero_and_rate_one_is_fedavg_bit_for_bit(sites, strategy) -> None:
    rng = np.random.default_rng(1)
    base, replies = rng.normal(size=500).astype("float32"), rng.normal(size=(3, 500)).astype("float32")
    average = sites(500).fold(strategy("fedavg"), base, replies, N)
    assert sites(500).fold(strategy("fedavgm", momentum=0.0, rate=1.0), base, replies, N).tobytes() == average.tobytes()


def flowers(by: flower.FedAvg, number: int, base: np.ndarray, replies: np.ndarray) -> np.ndarray:
    """The same round by Flower's class."""
    record = ArrayRecord({"w": Array(base)})
    if isinstance(by, flower.FedAvgM):
        by.current_arrays = record
    elif hasattr(by, "current_arrays"):
        by.current_arrays = {"w": base}
    messages = [
        Message(
            RecordDict({"arrays": ArrayRecord({"w": Array(x)}), "metrics": MetricRecord({"num-examples": n})}),
            dst_node_id=1,
            message_type="train",
        )
        for x, n in zip(replies, N, strict=False)
    ]
    arrays, _ = by.aggregate_train(number, messages)
    return arrays["w"].numpy()


@pytest.mark.parametrize("name", OPTIONS)
def test_numbers_are_those_of_flowers_class(sites, strategy, name: str) -> None:
    """Flower begins with v = 0 where the paper has τ², and its FedAdam corrects the moments' bias; both are undone."""
    theirs = {
        "fedavgm": flower.FedAvgM(server_momentum=0.7, server_learning_rate=0.5),
        "fedadagrad": flower.FedAdagrad(eta=0.3, tau=0.05),
        "fedadam": flower.FedAdam(eta=0.3, beta_1=0.8, beta_2=0.95, tau=0.05),
        "fedyogi": flower.FedYogi(eta=0.3, beta_1=0.8, beta_2=0.95, tau=0.05),
    }[name]
    run, by = sites(200), strategy(name, **OPTIONS[name])
    rng = np.random.default_rng(2)
    ours = other = rng.normal(size=200).astype("float32")
    if name != "fedavgm":
        run.memory["second"] = {"float32": np.zeros(200, "float32")}
    for number in range(1, ROUNDS + 1):
        replies = rng.normal(size=(3, 200)).astype("float32")
        if name == "fedadam":
            theirs.eta = 0.3 * (1 - 0.8 ** (number + 1)) / math.sqrt(1 - 0.95 ** (number + 1))
        ours = run.fold(by, ours, replies, N)
        other = flowers(theirs, number, other, replies).astype("float32")
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_the_means_and_never_negative(sites, strategy) -> None:
    schema = Schema(
        (
            Entry("w", "float32", (2,), 0, 2),
            Entry("n.running_mean", "float32", (2,), 2, 2, "buffer"),
            Entry("n.running_var", "float32", (2,), 4, 2, "buffer"),
            Entry("n.num_batches_tracked", "int64", (), 0, 1, "buffer"),
        )
    )
    replies = [
        {"float32": np.array([1, 2, 0, 0, 1e-3, 2e-3], "float32"), "int64": np.array([7])},
        {"float32": np.array([3, 4, 0, 0, 1e-3, 2e-3], "float32"), "int64": np.array([5])},
    ]
    base = {"float32": np.array([0, 0, 5, 5, 100, 100], "float32"), "int64": np.array([1])}
    for name in OPTIONS:
        result = sites(schema).fold(strategy(name), base, replies)
        np.testing.assert_array_equal(result[2:], np.array([0, 0, 1e-3, 2e-3], "float32"))
