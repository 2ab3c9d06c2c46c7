"""The weighted mean, held against numpy's average in float64 and against closed forms."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.wire import Entry, Schema
from server import aggregation
from server.aggregation import weighted_mean
from server.spool import Spool


def spooled(folder: Path, schema: Schema, arrays: list[dict[str, np.ndarray]]):
    spool = Spool(folder, schema)
    names = tuple(f"site-{i}" for i in range(len(arrays)))
    for name, flat in zip(names, arrays, strict=True):
        spool.add(1, name, flat, {"num-examples": 1})
    return spool.replies(1, names)


def floats(n: int) -> Schema:
    return Schema((Entry("w", "float32", (n,), 0, n),))


def test_weights_one_to_three_are_a_quarter_and_three_quarters(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=1000).astype("float32")
    y = np.random.default_rng(1).normal(size=1000).astype("float32")
    mean = weighted_mean(floats(1000), spooled(tmp_path, floats(1000), [{"float32": x}, {"float32": y}]), [1, 3])
    exact = (0.25 * x.astype("float64") + 0.75 * y.astype("float64")).astype("float32")
    np.testing.assert_array_equal(mean["float32"], exact)


@pytest.mark.parametrize("sites", [1, 2, 3, 7, 24])
def test_equal_replies_come_back_bit_for_bit(tmp_path: Path, sites: int) -> None:
    x = np.random.default_rng(sites).normal(size=5000).astype("float32") * np.float32(1e-3)
    replies = spooled(tmp_path, floats(5000), [{"float32": x}] * sites)
    mean = weighted_mean(floats(5000), replies, list(range(1, sites + 1)))
    assert mean["float32"].tobytes() == x.tobytes()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.integers(0, 2**31))
def test_equals_numpy_average(tmp_path_factory: pytest.TempPathFactory, weights: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=300).astype("float32") for _ in weights]
    replies = spooled(tmp_path_factory.mktemp("s"), floats(300), [{"float32": a} for a in arrays])
    expected = np.average(np.stack(arrays).astype("float64"), axis=0, weights=weights)
    np.testing.assert_allclose(weighted_mean(floats(300), replies, weights)["float32"], expected, rtol=1e-6, atol=1e-7)


def test_sums_are_those_of_float64_in_roster_order_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the sum written out, whole arrays at a time. Slices and blocks of any size do not show."""
    n, weights = 10_007, np.array([1.0, 2.0, 7.0, 0.3, 5.0])
    arrays = [np.random.default_rng(i).normal(size=n).astype("float32") for i in range(len(weights))]
    total = np.zeros(n)
    for values, share in zip(arrays, weights / weights.sum(), strict=True):
        total = total + values.astype("float64") * share
    replies = spooled(tmp_path, floats(n), [{"float32": a} for a in arrays])
    for size, block in ((1 << 18, 1 << 15), (4096, 1000), (64, 64)):
        monkeypatch.setattr(aggregation, "SLICE", size)
        monkeypatch.setattr(aggregation, "_BLOCK", block)
        mean = weighted_mean(floats(n), replies, [float(w) for w in weights])
        assert mean["float32"].tobytes() == total.astype("float32").tobytes()


def test_slices_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [{"float32": np.random.default_rng(i).normal(size=1001).astype("float32")} for i in range(3)]
    replies = spooled(tmp_path, floats(1001), arrays)
    whole = weighted_mean(floats(1001), replies, [1, 2, 3])
    monkeypatch.setattr(aggregation, "SLICE", 64)
    assert weighted_mean(floats(1001), replies, [1, 2, 3])["float32"].tobytes() == whole["float32"].tobytes()


def test_pooled_variance_is_that_of_all_samples_together(tmp_path: Path) -> None:
    """Oracle: numpy's variance of the concatenated samples."""
    rng = np.random.default_rng(3)
    samples = [rng.normal(loc, scale, size=(n, 4)) for loc, scale, n in ((0, 1, 50), (3, 2, 150), (-2, 0.5, 100))]
    names = [("bn.running_mean", 0), ("bn.running_var", 4)]
    schema = Schema(
        (*(Entry(n, "float32", (4,), o, 4) for n, o in names), Entry("bn.num_batches_tracked", "int64", (1,), 0, 1))
    )
    arrays = [
        {
            "float32": np.concatenate([s.mean(0), s.var(0)]).astype("float32"),
            "int64": np.array([i + 1]),
        }
        for i, s in enumerate(samples)
    ]
    mean = weighted_mean(schema, spooled(tmp_path, schema, arrays), [50, 150, 100])
    together = np.concatenate(samples)
    np.testing.assert_allclose(mean["float32"][:4], together.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean["float32"][4:], together.var(0), rtol=1e-5)
    within = np.average([s.var(0) for s in samples], axis=0, weights=[50, 150, 100])
    assert (mean["float32"][4:] > 1.5 * within).all(), "the between-site term is missing"
    assert mean["int64"][0] == 3


def test_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    arrays = {f"site-{i}": np.random.default_rng(i).normal(size=100).astype("float32") for i in range(4)}
    results = []
    for order in (sorted(arrays), sorted(arrays, reverse=True)):
        spool = Spool(tmp_path / order[0], floats(100))
        for name in order:
            spool.add(1, name, {"float32": arrays[name]}, {})
        results.append(weighted_mean(floats(100), spool.replies(1, tuple(sorted(arrays))), [1, 2, 3, 4]))
    assert results[0]["float32"].tobytes() == results[1]["float32"].tobytes()
