"""A scan's shape in a thousand numbers: the same for copies that were resampled, windowed anew, inverted or mirrored.

The numbers are the lowest spatial frequencies (cosine transform over the whole field of view) of the image after its
intensities were replaced by their ranks. The transform is a sum over voxels at relative positions, so it hardly
depends on the voxel size; ranks do not depend on window or gamma; a mirror image changes the sign of the odd
frequencies along its axis and nothing else, so mirrored copies are found without another transform.
"""

import base64
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Frequencies per axis: about a thousand numbers either way.
FREQUENCIES = {2: 32, 3: 10}
_LEVELS = 256
# Voxels per axis and frequency that are looked at: more change nothing and cost time.
_VOXELS = 8

Floats = NDArray[np.float32]


def of(image: NDArray[np.float32]) -> str:
    """The fingerprint of `image` (C, *S), mean of its channels, as text: float16, little-endian, base64."""
    spectrum = np.mean([_spectrum(channel) for channel in image], axis=0)
    norm = float(np.linalg.norm(spectrum))
    unit = spectrum / norm if norm > 0 else spectrum
    return base64.b64encode(np.ascontiguousarray(unit, dtype="<f2").tobytes()).decode("ascii")


def decode(text: str, dimensions: int) -> Floats:
    """`(K, ...)` frequencies of a fingerprint, K per axis as in `FREQUENCIES`; unit norm, constant part 0."""
    k = FREQUENCIES[dimensions]
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32).reshape((k,) * dimensions)


def signs(dimensions: int) -> Iterator[tuple[tuple[int, ...], Floats]]:
    """Each set of axes along which a copy may be mirrored, with the factors (±1) of the frequencies; none first."""
    parity = [1.0 - 2.0 * (index % 2) for index in np.indices((FREQUENCIES[dimensions],) * dimensions)]
    for number in range(dimensions + 1):
        for axes in itertools.combinations(range(dimensions), number):
            factor = np.ones(parity[0].shape, dtype=np.float32)
            for axis in axes:
                factor *= parity[axis].astype(np.float32)
            yield axes, factor


def _ranks(channel: NDArray[np.float32]) -> Floats:
    """Intensities as shares 0 … 1 of darker voxels, by 256 levels taken from a sample."""
    levels, first = np.unique(np.quantile(channel, np.linspace(0, 1, _LEVELS + 1)), return_index=True)
    last = np.append(first[1:] - 1, _LEVELS)
    ranks: Floats = np.interp(channel, levels, (first + last) / (2 * _LEVELS)).astype(np.float32)
    return ranks


def _spectrum(channel: NDArray[np.float32]) -> Floats:
    """Frequencies, each weighted by its distance from 0: low ones are alike in all scans of one body part."""
    count = FREQUENCIES[channel.ndim]
    steps = [max(1, n // (_VOXELS * count)) for n in channel.shape]
    values = _ranks(channel[tuple(slice(step // 2, None, step) for step in steps)])
    for axis, (n, step) in enumerate(zip(channel.shape, steps, strict=True)):
        place = (np.arange(step // 2, n, step) + 0.5) / n
        waves = np.cos(np.pi * np.outer(np.arange(count), place)) / place.size
        # Beyond half a wave per voxel there is nothing that another voxel size would show too.
        waves[np.arange(count) > n // 2] = 0
        values = np.moveaxis(np.tensordot(waves.astype(np.float32), values, axes=(1, axis)), 0, axis)
    weighted: Floats = (values * np.sqrt((np.indices(values.shape) ** 2).sum(axis=0))).astype(np.float32)
    return weighted
