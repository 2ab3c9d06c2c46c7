"""Robust strategies against numpy, scipy, Flower's classes and brute force; and with sites that lie."""

import itertools

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import trim_mean

from common.wire import Entry, Schema
from server import aggregation, robust
from server.robust import products, squared_distances
from server.spool import Spool
from server.strategies.base import Fold
from server.strategies.multi_krum import scores

ROBUST = {
    "median": {},
    "trimmed_mean": {},
    "krum": {},
    "multi_krum": {},
    "geometric_median": {},
}
N = 400


def drawn(sites: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(sites, N)).astype("float32")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_median_is_numpys(sites, strategy, count: int) -> None:
    replies = drawn(count)
    result = sites(N).fold(strategy("median"), np.zeros(N), replies)
    np.testing.assert_array_equal(result, np.median(replies, axis=0))


@pytest.mark.parametrize(
    ("count", "trim", "cut"), [(1, 0.2, 0), (2, 0.4, 0), (3, 0.1, 1), (5, 0.2, 1), (10, 0.3, 3), (4, 0, 0)]
)
def test_trimmed_mean_is_scipys(sites, strategy, count: int, trim: float, cut: int) -> None:
    """Scipy is told how many to cut: below one site per end it cuts none, and we one."""
    replies = drawn(count)
    result = sites(N).fold(strategy("trimmed_mean", trim=trim), np.zeros(N), replies)
    expected = trim_mean(replies.astype("float64"), (cut + 0.01) / count if cut else 0, axis=0)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("ours", "options", "theirs", "settings"),
    [
        ("median", {}, flower.FedMedian, {}),
        ("trimmed_mean", {"trim": 0.3}, flower.FedTrimmedAvg, {"beta": 0.3}),
        ("krum", {"faulty": 2}, flower.Krum, {"num_malicious_nodes": 2}),
        (
            "multi_krum",
            {"faulty": 2, "keep": 4},
            flower.MultiKrum,
            {"num_malicious_nodes": 2, "num_nodes_to_select": 4},
        ),
        (
            "multi_krum",
            {"faulty": 0, "keep": 3},
            flower.MultiKrum,
            {"num_malicious_nodes": 0, "num_nodes_to_select": 3},
        ),
    ],
)
def test_numbers_are_those_of_flowers_class(sites, strategy, ours, options, theirs, settings) -> None:
    replies, weights = drawn(7), [1.0, 2, 3, 4, 5, 6, 7]
    replies[2] += 3
    own = sites(N).fold(strategy(ours, **options), np.zeros(N), replies, weights)
    other = sites(N).fold(strategy("flower", strategy=theirs.__name__, **settings), np.zeros(N), replies, weights)
    np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


def folded(tmp_path, replies: np.ndarray, base: np.ndarray, study) -> Fold:
    schema = Schema((Entry("w", "float32", (replies.shape[1],), 0, replies.shape[1]),))
    spool = Spool(tmp_path, schema)
    names = tuple(f"site-{i}" for i in range(len(replies)))
    for name, values in zip(names, replies, strict=True):
        spool.add(1, name, {"float32": values}, {})
    return Fold(study, schema, spool.replies(1, names), [1.0] * len(names), {"float32": base}, 1, {})


def test_distances_are_brute_forces_also_between_nearly_equal_models(tmp_path, study_of, monkeypatch) -> None:
    """In fp32, as ‖x‖² + ‖y‖² − 2xy of the whole weights, nothing would be left of them."""
    monkeypatch.setattr(robust, "STACK", 64)
    base = 10 + drawn(1)[0]
    replies = (base + 1e-4 * drawn(5, 1)).astype("float32")
    found = squared_distances(products(folded(tmp_path, replies, base, study_of())))
    wide = replies.astype("float64")
    expected = [[((x - y) ** 2).sum() for x in wide] for y in wide]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("count", "faulty"), [(5, 1), (7, 2), (3, 1), (2, 1)])
def test_krum_scores_by_brute_force(count: int, faulty: int) -> None:
    points = np.random.default_rng(3).normal(size=(count, 4))
    distances = ((points[:, None] - points) ** 2).sum(-1)
    near = max(1, count - faulty - 2)
    expected = [
        min(sum(c) for c in itertools.combinations([distances[i, j] for j in range(count) if j != i], near))
        for i in range(count)
    ]
    np.testing.assert_allclose(scores(distances, faulty), expected)


def test_krum_is_one_site_bit_for_bit(sites, strategy) -> None:
    replies = drawn(5)
    replies[1:4] *= np.float32(0.1)  # the three that lie closest together
    result = sites(N).fold(strategy("krum"), np.zeros(N), replies)
    assert result.tobytes() in {r.tobytes() for r in replies[1:4]}


@pytest.mark.parametrize("seed", range(4))
def test_geometric_median_is_scipys_minimum(sites, strategy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(5, 3)).astype("float32").astype("float64"), rng.uniform(1, 3, size=5)

    def total(z: np.ndarray) -> float:
        return float(weights @ np.linalg.norm(points - np.asarray(z, np.float64), axis=1))

    best = minimize(
        total, points.mean(0), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 5000}
    )
    result = sites(3).fold(strategy("geometric_median"), rng.normal(size=3), points, list(weights))
    np.testing.assert_allclose(result, best.x, atol=1e-6)
    assert total(result) <= best.fun + 1e-9


def test_geometric_median_of_a_triangle_is_fermats_point(sites, strategy) -> None:
    """Of an equilateral triangle the centre; a corner of 120° or more is the point itself."""
    equal = [[0, 0], [1, 0], [0.5, 3**0.5 / 2]]
    np.testing.assert_allclose(sites(2).fold(strategy("geometric_median"), [0, 0], equal), [0.5, 3**0.5 / 6], atol=1e-6)
    flat = [[-1, 0.1], [0, 0.2], [1, 0.1]]
    np.testing.assert_allclose(sites(2).fold(strategy("geometric_median"), [0, 0], flat), [0, 0.2], atol=1e-3)


def test_norm_clipping_by_hand(sites, strategy) -> None:
    """Changes of length 5, 1 and 10 to at most 2: (3, 4)·2/5, (0, 1), (10, 0)·2/10; their mean from (1, 1)."""
    result = sites(2).fold(strategy("norm_clipping", norm=2.0), [1, 1], [[4, 5], [1, 2], [11, 1]])
    np.testing.assert_allclose(result, [1 + (1.2 + 0 + 2) / 3, 1 + (1.6 + 1 + 0) / 3], rtol=1e-6)


def test_norm_clipping_by_the_median_of_the_round(sites, strategy) -> None:
    result = sites(2).fold(strategy("norm_clipping"), [0, 0], [[3, 4], [0, 1], [100, 0]])
    np.testing.assert_allclose(result, [(3 + 0 + 5) / 3, (4 + 1 + 0) / 3], rtol=1e-6)


def test_norm_clipping_without_need_is_fedavg_bit_for_bit(sites, strategy) -> None:
    replies = drawn(3)
    average = sites(N).fold(strategy("fedavg"), np.zeros(N), replies, [1, 2, 3])
    clipped = sites(N).fold(strategy("norm_clipping", norm=1e6), np.zeros(N), replies, [1, 2, 3])
    assert clipped.tobytes() == average.tobytes()


def test_norm_clipping_clips_statistics_by_their_own_norm(sites, strategy) -> None:
    schema = Schema((Entry("w", "float32", (1,), 0, 1), Entry("n.running_var", "float32", (1,), 1, 1, "buffer")))
    replies = [[1, 101], [1, 101], [1, 1e6]]
    result = sites(schema).fold(strategy("norm_clipping"), [0, 1], replies)
    np.testing.assert_allclose(result, [1, 101], rtol=1e-6)


LIES = {
    "sign flip": lambda honest, base: base - 4 * (honest - base),
    "scaled": lambda honest, base: base + 1e6 * (honest - base),
    "noise": lambda honest, base: np.random.default_rng(9).normal(scale=1e3, size=honest.shape),
    "constant": lambda honest, base: np.full(honest.shape, 1e30),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("name", ROBUST)
def test_one_lie_in_five_stays_among_the_honest_where_the_mean_leaves(sites, strategy, name: str, lie: str) -> None:
    rng = np.random.default_rng(5)
    base, truth = rng.normal(size=N), rng.normal(size=N)
    honest = base + truth + 0.3 * rng.normal(size=(4, N))
    replies = [*honest, LIES[lie](honest[0], base)]
    spread = np.linalg.norm(honest - honest.mean(0), axis=1).max()
    away = np.linalg.norm(sites(N).fold(strategy(name), base, replies) - honest.mean(0))
    assert away < 1.5 * spread
    mean = sites(N).fold(strategy("fedavg"), base, replies).astype("float64")
    assert np.linalg.norm(mean - honest.mean(0)) > 2.5 * spread


@pytest.mark.parametrize("name", ROBUST)
def test_a_lie_in_the_running_statistics_and_counters_does_not_count(sites, strategy, name: str) -> None:
    schema = Schema(
        (
            Entry("w", "float32", (3,), 0, 3),
            Entry("n.running_mean", "float32", (1,), 3, 1, "buffer"),
            Entry("n.running_var", "float32", (1,), 4, 1, "buffer"),
            Entry("n.num_batches_tracked", "int64", (), 0, 1, "buffer"),
        )
    )
    honest = [{"float32": np.array([1, 1, 1 + i / 10, 2, 3], "float32"), "int64": np.array([4])} for i in range(4)]
    wrong = {"float32": np.array([-9, 9, -9, 1e9, 1e9], "float32"), "int64": np.array([10**9])}
    run = sites(schema)
    result = run.fold(
        strategy(name), {"float32": np.zeros(5, "float32"), "int64": np.zeros(1, "int64")}, [*honest, wrong]
    )
    np.testing.assert_allclose(result[3:], [2, 3], rtol=2e-2)


@pytest.mark.parametrize("name", [*ROBUST, "norm_clipping"])
def test_slices_do_not_show(sites, strategy, monkeypatch, name: str) -> None:
    replies, base = drawn(4), drawn(1, 8)[0]
    whole = sites(N).fold(strategy(name), base, replies)
    monkeypatch.setattr(aggregation, "SLICE", 64)
    monkeypatch.setattr(robust, "STACK", 4 * 50)
    np.testing.assert_allclose(sites(N).fold(strategy(name), base, replies), whole, rtol=1e-6)
    if name in ("median", "krum"):
        assert sites(N).fold(strategy(name), base, replies).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", [*ROBUST, "norm_clipping"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_equal_replies_come_back(sites, strategy, name: str, count: int) -> None:
    reply = drawn(1)[0]
    result = sites(N).fold(strategy(name), drawn(1, 4)[0], [reply] * count)
    np.testing.assert_allclose(result, reply, rtol=1e-7)
