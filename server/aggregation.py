"""The weighted mean over a spool: the memory of one model and one slice, however many sites."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.wire import Flat, Schema
from server.spool import Reply

SLICE = 1 << 18  # elements read from each reply at a time: 1 MB of fp32, in memory that the allocator keeps
_BLOCK = 1 << 15  # elements added at a time: 256 kB of fp64
_WORKERS = min(4, os.cpu_count() or 1)  # NumPy and reads let go of Python's lock


def weighted_mean(schema: Schema, replies: Sequence[Reply], weights: Sequence[float]) -> Flat:
    """Σ w_k x_k / Σ w_k, in roster order.

    Sums run in float64 and are rounded once, so one reply, or many equal ones, come back bit for bit. Variances of
    batch normalisation are pooled with the between-site term, Σ w_k (σ_k² + (μ_k − μ)²); counters take the maximum.
    """
    shares = np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64)
    result: Flat = {dtype: np.empty(n, dtype) for dtype, n in schema.sizes.items()}
    with ThreadPoolExecutor(_WORKERS) as workers:
        for dtype, out in result.items():
            # One worker adds up all of a slice: who does, and when, does not show in the sums.
            for _ in workers.map(partial(_fill, out, dtype, replies, shares), range(0, out.size, SLICE)):
                pass
    _pool_variances(schema, replies, shares, result)
    return result


def _fill(out: NDArray[Any], dtype: str, replies: Sequence[Reply], shares: NDArray[np.float64], start: int) -> None:
    """The slice of `out` that begins at `start`: weighted sums, of counters the largest."""
    stop = min(start + SLICE, out.size)
    if dtype == "int64":
        out[start:stop] = np.max([r.read(dtype, start, stop) for r in replies], axis=0)
        return
    total, product = np.zeros(stop - start), np.empty(_BLOCK)
    for reply, share in zip(replies, shares, strict=True):
        _add(total, reply.read(dtype, start, stop), share, product)
    out[start:stop] = total


def _add(total: NDArray[np.float64], values: NDArray[Any], share: np.float64, product: NDArray[np.float64]) -> None:
    """total += share · values, in blocks of the size of `product`, which then never leave the processor's cache."""
    for start in range(0, values.size, product.size):
        block = values[start : start + product.size]
        part = product[: block.size]
        part[:] = block  # first: a multiplication that converts as well is slower
        part *= share
        total[start : start + block.size] += part


def parameter_places(schema: Schema) -> Iterator[slice]:
    """Where the net's parameters lie in the float32 array, in slices of at most `SLICE` elements."""
    return schema.places("parameter", longest=SLICE)


def _pool_variances(schema: Schema, replies: Sequence[Reply], shares: NDArray[np.float64], result: Flat) -> None:
    for mean, variance in schema.statistics():
        means = np.stack([r.read(mean.dtype, mean.place.start, mean.place.stop) for r in replies]).astype(np.float64)
        variances = np.stack([r.read(variance.dtype, variance.place.start, variance.place.stop) for r in replies])
        pooled_mean = np.tensordot(shares, means, axes=1)
        result[variance.dtype][variance.place] = np.tensordot(shares, variances + (means - pooled_mean) ** 2, axes=1)
