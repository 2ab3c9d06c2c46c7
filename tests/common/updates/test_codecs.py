"""The codecs of updates: held against torch, NumPy's own selection and closed forms; malicious arrays are seen."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.names import UPDATES
from common.updates.base import Codec
from common.updates.half import Half
from common.updates.int8 import Int8
from common.updates.topk import TopK

CODECS: list[Codec] = [Half(), Half(dtype="bfloat16"), Int8(), Int8(block=8), TopK(), TopK(share=0.01)]
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
CHANGES = st.lists(FINITE, max_size=70).map(lambda v: np.array(v, np.float32))


def through(codec: Codec, change: np.ndarray) -> np.ndarray:
    """What the other side reads; on the way the arrays are what was promised."""
    before = change.copy()
    coded = codec.encode(change)
    assert {k: (v.size, v.dtype.name) for k, v in coded.items()} == {
        k: (n, k) for k, n in codec.sizes(change.size).items()
    }
    assert codec.fault(coded, change.size) is None
    assert change.tobytes() == before.tobytes()
    decoded = codec.decode(coded, change.size)
    assert (decoded.dtype, decoded.shape) == (np.float32, change.shape)
    return decoded


def random(n: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * 10.0 ** rng.uniform(-6, 0, n)).astype(np.float32)


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: type(c).__name__)
@given(change=CHANGES)
@settings(max_examples=40, deadline=None)
def test_every_finite_change_has_a_coded_form(codec: Codec, change: np.ndarray) -> None:
    assert np.isfinite(through(codec, np.clip(change, -1e38, 1e38))).all()


@given(change=CHANGES, block=st.sampled_from([8, 9, 64, 256]))
@settings(max_examples=80, deadline=None)
def test_int8_is_off_by_half_a_scale_at_most(change: np.ndarray, block: int) -> None:
    """Half a scale, the float32 rounding of what is read, and what is below float32's normal numbers."""
    change = np.clip(change, -1e38, 1e38)
    codec = Int8(block=block)
    scales = np.repeat(codec.encode(change)["float32"], block)[: change.size].astype(np.float64)
    error = np.abs(through(codec, change).astype(np.float64) - change)
    assert (error <= scales / 2 * (1 + 1e-5) + 127 * np.finfo(np.float32).tiny).all()


def test_int8_by_hand() -> None:
    """The largest value of a block is 127 steps; every other is the nearest step, halves to even."""
    change = np.array([12.7, -6.35, 0.05, 0.15, 0, 0, 0, 0, -1e-3, 0, 0], np.float32)
    coded = Int8(block=8).encode(change)
    assert coded["int8"].tolist()[0] == 127
    assert coded["int8"].tolist()[4:] == [0, 0, 0, 0, -127, 0, 0]
    np.testing.assert_allclose(coded["float32"], [0.1, 1e-3 / 127], rtol=1e-6)


def test_int8_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    change = random(5000)
    whole = Int8(block=64).encode(change)
    monkeypatch.setattr("common.updates.int8._AT_ONCE", 100)
    parts = Int8(block=64).encode(change)
    assert all(whole[k].tobytes() == parts[k].tobytes() for k in whole)
    assert Int8(block=64).decode(whole, 5000).tobytes() == through(Int8(block=64), change).tobytes()


@given(change=CHANGES)
@settings(max_examples=80, deadline=None)
def test_half_rounds_as_torch_does(change: np.ndarray) -> None:
    for dtype, most in (("float16", 65504.0), ("bfloat16", torch.finfo(torch.bfloat16).max)):
        expected = torch.from_numpy(np.clip(change, -most, most)).to(getattr(torch, dtype)).float().numpy()
        assert through(Half(dtype=dtype), change).tobytes() == expected.tobytes()  # type: ignore[arg-type]


@given(st.integers(1, 300), st.floats(0.001, 0.5), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_topk_are_numpys_own(n: int, share: float, seed: int) -> None:
    """Of values that all differ, those that NumPy's partial sort puts last."""
    change = np.random.default_rng(seed).permutation(np.arange(1, n + 1)).astype(np.float32)
    change[::2] *= -1
    codec = TopK(share=share)
    k = codec.sizes(n)["uint32"]
    assert k == max(1, -int(-share * n // 1))
    expected = set(np.argpartition(np.abs(change), n - k)[n - k :].tolist())
    assert set(codec.encode(change)["uint32"].tolist()) == expected
    decoded = through(codec, change)
    assert set(np.flatnonzero(decoded).tolist()) == expected
    assert np.array_equal(decoded[decoded != 0], change[decoded != 0])  # whole numbers up to 2048 are float16's own


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=1, max_size=60), st.floats(0.01, 0.5))
@settings(max_examples=50, deadline=None)
def test_of_equal_changes_topk_takes_the_first(values: list[float], share: float) -> None:
    """Oracle: a stable sort."""
    change, codec = np.array(values, np.float32), TopK(share=share)
    k = codec.sizes(len(values))["uint32"]
    expected = sorted(sorted(range(len(values)), key=lambda i: -abs(values[i]))[:k])
    assert codec.encode(change)["uint32"].tolist() == expected


def test_what_is_too_large_for_16_bits_is_their_largest_number() -> None:
    change = np.array([1e6, -3e38, 1.0], np.float32)
    assert through(Half(), change).tolist() == [65504, -65504, 1]
    assert through(TopK(share=0.5), change).tolist() == [65504, -65504, 0]


def wrong(codec: Codec, dtype: str, place: int, value: Any) -> str | None:
    coded = codec.encode(random(40))
    coded[dtype] = coded[dtype].copy()
    coded[dtype][place] = value
    return codec.fault(coded, 40)


def test_malicious_arrays_have_a_fault() -> None:
    for bits in (0x7F80, 0xFF80, 0x7FC0, 0xFFFF):
        assert wrong(Half(dtype="bfloat16"), "uint16", 3, bits) == "values are NaN or infinite"
    assert wrong(Int8(), "int8", 0, -128) == "a number is below -127"
    assert wrong(Int8(), "float32", 0, -1.0) == "a scale is negative"
    codec = TopK(share=0.1)
    assert wrong(codec, "uint32", -1, 40) == "a place lies beyond the last parameter"
    assert wrong(codec, "uint32", 1, 2**32 - 1) == "the places are not in rising order, each once"
    coded = codec.encode(random(40))
    assert wrong(codec, "uint32", 1, coded["uint32"][0]) == "the places are not in rising order, each once"
    assert codec.fault({**coded, "uint32": coded["uint32"][::-1].copy()}, 40) is not None


def descend(codec: Codec | None, feedback: bool = False, rounds: int = 300, n: int = 200) -> float:
    """Distance from the optimum after rounds of two sites, each with a quadratic around a point of its own.

    The optimum of the mean is the mean of the two points, which lie far apart in a tenth of the coordinates: there the
    sites' changes are large for ever, and cancel out.
    """
    optimum = np.random.default_rng(3).standard_normal(n)
    apart = np.where(np.arange(n) < n // 10, 5.0, 0.0)
    w, left = np.zeros(n, np.float32), [np.zeros(n, np.float32) for _ in range(2)]
    for number in range(rounds):
        step, made = 0.1 * (1 - number / rounds), np.zeros((2, n))
        for i, own in enumerate((optimum + apart, optimum - apart)):
            whole = (step * (own - w)).astype(np.float32) + left[i]
            made[i] = whole if codec is None else codec.decode(codec.encode(whole), n)
            left[i] = (whole - made[i]).astype(np.float32) if feedback else left[i]
        w = (w + made.mean(axis=0)).astype(np.float32)
    return float(np.linalg.norm(w - optimum))


def test_with_feedback_training_ends_where_it_should_and_without_it_stalls() -> None:
    """The optimum in closed form: plain top-k never gets beyond the loud tenth, plain int8 stops at its steps."""
    start = descend(None, rounds=0)
    assert descend(None) < 1e-5 * start
    assert descend(TopK(share=0.1)) > 0.9 * start
    assert descend(TopK(share=0.1), feedback=True) < 0.02 * start
    assert descend(Int8()) > 0.01 * start
    assert descend(Int8(), feedback=True) < 0.0005 * start


def test_the_bytes_are_what_the_cards_say() -> None:
    n = 1_000_000
    sizes = {
        (name, *options.values()): sum(
            np.dtype(d).itemsize * m for d, m in UPDATES.get(name)(**options).sizes(n).items()
        )
        for name, options in (("half", {}), ("int8", {}), ("int8", {"block": 1024}), ("topk", {"share": 0.01}))
    }
    assert sizes == {
        ("half",): 2 * n,
        ("int8",): n + 4 * 3907,
        ("int8", 1024): n + 4 * 977,
        ("topk", 0.01): 60_000,
    }
    assert sizes[("int8",)] <= 0.26 * 4 * n
