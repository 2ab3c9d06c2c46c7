"""The fingerprint is a cosine transform of the ranks: held against SciPy's own, and against mirrored arrays."""

import numpy as np
import pytest
from scipy import fft

from client.data.gate import fingerprint


@pytest.mark.parametrize("shape", [(64, 48), (40, 32, 24)])
def test_it_is_the_low_part_of_a_cosine_transform(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ranks = image.ravel().argsort().argsort().reshape(shape) / image.size
    k = fingerprint.FREQUENCIES[len(shape)]
    low = (slice(0, k),) * len(shape)
    expected = fft.dctn(ranks, type=2)[low] * np.sqrt((np.indices((k,) * len(shape)) ** 2).sum(axis=0))
    for axis, n in enumerate(shape):
        expected[(slice(None),) * axis + (slice(n // 2 + 1, None),)] = 0
    got = fingerprint.decode(fingerprint.of(image[np.newaxis]), len(shape))
    # 256 levels of rank and half precision.
    assert np.corrcoef(expected.ravel(), got.ravel())[0, 1] > 0.995


def test_mirror_images_differ_by_signs_only() -> None:
    image = np.random.default_rng(2).normal(size=(1, 30, 26, 22)).astype(np.float32)
    own = fingerprint.decode(fingerprint.of(image), 3)
    for axes, sign in fingerprint.signs(3):
        mirrored = np.flip(image, [a + 1 for a in axes]) if axes else image
        got = fingerprint.decode(fingerprint.of(np.ascontiguousarray(mirrored)), 3)
        np.testing.assert_allclose(got, own * sign, atol=2e-3)
