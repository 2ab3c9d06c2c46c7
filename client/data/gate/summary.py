"""The few numbers of a case that stay beside its arrays, so that checks of a whole site read no scan again."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.data.gate import faces, fingerprint, mirrors

# Values looked at for percentiles: enough for the 0.1st to be known to a tenth of itself.
_SAMPLE = 2**20


class Channel(TypedDict):
    """Intensities of one image channel as stored.

    `low` and `high` are the extremes, `at_low` and `at_high` the shares of voxels that have exactly these values,
    `p01`, `p50`, `p999` the 0.1st, 50th and 99.9th percentile, `below` the share of voxels from −1500 to below −50,
    `border` the median of the outermost voxels, `whole` whether all values are whole numbers.
    """

    low: float
    high: float
    at_low: float
    at_high: float
    p01: float
    p50: float
    p999: float
    below: float
    border: float
    whole: bool


class Structure(TypedDict):
    """One label of a case.

    `volume` is in mm³ (mm² or pixels for pictures), `centre` the distance in mm along each array axis from the middle
    of the field of view to the label's centroid, `cut` the largest cross-section at a side of the field of view as a
    share of the label's largest cross-section along that axis, `fragments` the number of its connected parts.
    """

    volume: float
    centre: list[float]
    cut: float
    fragments: int


class Summary(TypedDict):
    """What `summarise` says: one entry per channel, one per label (None where it is absent), and the rest.

    `extent` is the size of the field of view in mm along each array axis; `edges` says how well the mask fits the image
    (`mirrors`), `fingerprint` what the scan looks like (`fingerprint`), `relief` how much of a face it shows (`faces`).
    """

    channels: list[Channel]
    structures: list[Structure | None]
    extent: list[float]
    edges: mirrors.Edges | None
    fingerprint: str
    relief: float


def summarise(image: NDArray[np.float32], truth: NDArray[np.uint8], spacing: Sequence[float], labels: int) -> Summary:
    """The numbers of one case.

    Args:
        image: `(C, *S)` as read, axes in RAS+ order.
        truth: `(*S)`: 0, the study's labels from 1, or `common.labels.IGNORE`.
        spacing: Voxel size in mm.
        labels: Number of the study's labels.
    """
    return {
        "channels": [channel(c) for c in image],
        "structures": [structure(truth == n, spacing) for n in range(1, labels + 1)],
        "extent": [float(n * s) for n, s in zip(truth.shape, spacing, strict=True)],
        "edges": mirrors.edges(image, truth, labels),
        "fingerprint": fingerprint.of(image),
        "relief": faces.relief(image[0], spacing),
    }


def channel(values: NDArray[np.float32]) -> Channel:
    """The numbers of one channel `(*S)`."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _SAMPLE)]
    p01, p50, p999 = np.percentile(some, [0.1, 50, 99.9])
    low, high = float(values.min()), float(values.max())
    return {
        "low": low,
        "high": high,
        "at_low": float(np.mean(flat == low)),
        "at_high": float(np.mean(flat == high)),
        "p01": float(p01),
        "p50": float(p50),
        "p999": float(p999),
        "below": float(np.mean((some >= -1500) & (some < -50))),
        "border": float(np.median(_border(values))),
        "whole": bool((some == np.rint(some)).all()),
    }


def structure(mask: NDArray[np.bool_], spacing: Sequence[float]) -> Structure | None:
    """The numbers of one label `(*S)`; None where it has no voxel."""
    box = ndimage.find_objects(mask.astype(np.uint8), max_label=1)[0]
    if box is None:
        return None
    inside = mask[box]
    start = np.array([part.start for part in box])
    middle = (np.array(mask.shape) - 1) / 2
    count = int(inside.sum())
    sums = [float(_profile(inside, axis) @ np.arange(inside.shape[axis])) for axis in range(mask.ndim)]
    centroid = start + np.array(sums) / count
    every = ndimage.generate_binary_structure(mask.ndim, mask.ndim)
    return {
        "volume": float(count * np.prod(spacing)),
        "centre": ((centroid - middle) * np.array(spacing)).tolist(),
        "cut": max(_cut(mask, inside, axis, part) for axis, part in enumerate(box)),
        "fragments": int(ndimage.label(inside, every)[1]),
    }


def _profile(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    """Labelled voxels in each slice across `axis`."""
    profile: NDArray[np.int64] = mask.sum(axis=tuple(a for a in range(mask.ndim) if a != axis), dtype=np.int64)
    return profile


def _cut(mask: NDArray[np.bool_], inside: NDArray[np.bool_], axis: int, part: slice) -> float:
    profile = _profile(inside, axis)
    # Of a single slice every structure fills both sides.
    if mask.shape[axis] < 3:
        return 0.0
    first = profile[0] if part.start == 0 else 0
    last = profile[-1] if part.stop == mask.shape[axis] else 0
    return float(max(first, last) / profile.max())


def _border(values: NDArray[np.float32]) -> NDArray[np.float32]:
    # The first and last slices of a stack lie within the body: only the two axes in plane have borders of air.
    sides = [values[tuple(at if a == axis else slice(None) for a in range(values.ndim))]
             for axis in (0, 1) for at in (0, -1)]  # fmt: skip
    return np.concatenate([side.reshape(-1)[:: max(1, side.size // 65_536)] for side in sides])
