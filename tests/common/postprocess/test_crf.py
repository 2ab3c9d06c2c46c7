"""The dense CRF against its formula, written out pair by pair; and what it is for."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.postprocess.crf import CRF


def by_pairs(probabilities: Tensor, image: Tensor, spacing: Sequence[float], crf: CRF) -> NDArray[np.float64]:
    """Mean field of a Potts model over all pairs i != j, each kernel's row divided by its sum with the voxel itself."""
    p = probabilities.double().flatten(1).numpy()
    values = image.double().flatten(1).numpy()
    voxels = list(itertools.product(*map(range, image.shape[1:])))
    near, alike = (np.eye(len(voxels)) for _ in range(2))
    for i, j in itertools.permutations(range(len(voxels)), 2):
        apart = np.subtract(voxels[i], voxels[j])
        if abs(apart).max() > crf.radius:
            continue
        far = float(((apart * spacing) ** 2).sum())
        unlike = float(((values[:, i] - values[:, j]) ** 2).sum())
        near[i, j] = math.exp(-far / (2 * crf.width**2))
        alike[i, j] = math.exp(-far / (2 * crf.place**2) - unlike / (2 * crf.contrast**2))
    pull = sum(
        weight * (k - np.eye(len(voxels))) / k.sum(1, keepdims=True)
        for weight, k in ((crf.smoothness, near), (crf.appearance, alike))
    )
    q = p
    for _ in range(crf.iterations):
        heard = q @ pull.T  # (K, N): how strongly each voxel is pulled towards each class
        q = p * np.exp(-(heard.sum(0) - heard))
        q = q / q.sum(0)
    return q.reshape(probabilities.shape)


@pytest.mark.parametrize(
    ("shape", "channels", "spacing", "crf"),
    [
        ((5, 5), 1, (1.0, 1.0), CRF(radius=4)),  # every pair: the full model
        ((5, 5), 2, (0.5, 2.0), CRF(radius=4, place=2.0, contrast=0.3, width=0.7, appearance=2.0, iterations=3)),
        ((5, 5), 1, (1.0, 1.0), CRF(radius=1, smoothness=0.0)),
        ((3, 4, 3), 1, (1.0, 0.8, 3.0), CRF(radius=2, appearance=0.0, smoothness=3.0, width=2.0)),
    ],
)
def test_probabilities_are_those_of_the_sum_over_pairs(
    shape: tuple[int, ...], channels: int, spacing: tuple[float, ...], crf: CRF
) -> None:
    draw = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(torch.randn(3, *shape, generator=draw), 0)
    image = torch.randn(channels, *shape, generator=draw)
    out = crf(probabilities, image, spacing)
    np.testing.assert_allclose(out.numpy(), by_pairs(probabilities, image, spacing, crf), atol=2e-6)
    assert abs(out - probabilities).max() > 0.05


def test_a_class_that_the_net_excludes_makes_nothing_infinite() -> None:
    probabilities = torch.zeros(2, 4, 4)
    probabilities[0] = 1
    torch.testing.assert_close(CRF()(probabilities, torch.zeros(1, 4, 4), (1.0, 1.0)), probabilities)


def test_borders_move_to_where_the_image_has_them() -> None:
    # The net is unsure from column 8 to 16 and puts the border at column 12; the image has it at column 10.
    image = torch.zeros(1, 24, 24)
    image[:, :, 10:] = 2.0
    ramp = ((torch.arange(24) - 11.5) / 10 + 0.5).clamp(0.02, 0.98).expand(24, 24)
    image += 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    probabilities = torch.stack([1 - ramp, ramp])
    assert (probabilities.argmax(0)[12] == 1).nonzero()[0] == 12
    found = CRF()(probabilities, image, (1.0, 1.0)).argmax(0)
    assert torch.equal(found, (image[0] > 1).long())
    # In an image without a border the net's own stays.
    flat = CRF()(probabilities, torch.zeros_like(image), (1.0, 1.0)).argmax(0)
    assert torch.equal(flat, probabilities.argmax(0))
