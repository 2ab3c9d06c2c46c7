"""Augmentation moves image and label together, turns in millimetres, mirrors nothing, and is a function of its seed."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from client.data.augment import SCALE, TURN, Augmentation


def moving(patch: tuple[int, ...], spacing: tuple[float, ...] | None = None, count: int = 8) -> list[Augmentation]:
    """The first `count` augmentations that move their sample."""
    every = (Augmentation(seed, patch, spacing) for seed in itertools.count())
    return list(itertools.islice((a for a in every if a.matrix is not None), count))


def ball(size: list[int]) -> Tensor:
    """An off-centre ball, large enough to be in every patch."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    return (sum((a - 0.1) ** 2 for a in axes) < 0.2).to(torch.uint8)  # type: ignore[union-attr]


def box(augmentation: Augmentation, patch: tuple[int, ...]) -> list[int]:
    return [p + 2 * m for p, m in zip(patch, augmentation.margin, strict=True)]


@pytest.mark.parametrize("patch", [(24, 30, 20), (48, 40)])
def test_the_label_moves_with_the_image(patch: tuple[int, ...]) -> None:
    for augmentation in moving(patch):
        label = ball(box(augmentation, patch))
        image = label[None].float()
        assert augmentation.matrix is not None
        seen, moved = augmentation._moved(image, label, augmentation.matrix)
        assert moved.shape == patch
        assert 0 < int(moved.sum()) < moved.numel()
        # Linear and nearest interpolation of a mask differ at its surface only, by less than 1; rounded they are one.
        wrong = (seen[0].round() != moved).float().mean()
        assert wrong < 0.02


def test_a_voxel_of_the_patch_shows_the_place_that_the_matrix_says() -> None:
    # The image holds its own coordinates from the box's centre, so linear interpolation is exact.
    patch = (16, 20, 12)
    for augmentation in moving(patch, (1.0, 1.0, 2.0)):
        size = box(augmentation, patch)
        axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size]
        image = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        assert augmentation.matrix is not None
        seen, _ = augmentation._moved(image, torch.zeros(size, dtype=torch.uint8), augmentation.matrix)
        output = torch.stack(torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in patch), indexing="ij"))
        wanted = torch.einsum("ij,j...->i...", torch.from_numpy(augmentation.matrix), output.double())
        torch.testing.assert_close(seen.double(), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.0)])
def test_movements_are_turns_and_one_scale_in_millimetres(spacing: tuple[float, float, float]) -> None:
    for augmentation in moving((32, 32, 16), spacing, 30):
        assert augmentation.matrix is not None
        mm = np.diag(spacing) @ augmentation.matrix @ np.diag(1 / np.array(spacing))
        scale = np.linalg.det(mm) ** (1 / 3)
        assert 1 / SCALE <= scale <= SCALE
        turn = mm / scale
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)  # a turn: no shear; det > 0: no mirror
        # Three turns about the axes add up to at most three times the angle.
        assert math.acos(min(1.0, (np.trace(turn) - 1) / 2)) <= 3 * TURN


def test_thick_slices_are_not_turned_out_of_their_plane() -> None:
    for augmentation in moving((32, 32, 8), (0.5, 0.5, 5.0)):
        assert augmentation.matrix is not None
        assert augmentation.matrix[2, :2].tolist() == [0, 0]
        assert augmentation.matrix[:2, 2].tolist() == [0, 0]
        assert augmentation.matrix[0, 1] != 0


def test_the_rest_is_left_in_place() -> None:
    label = ball([16, 16, 16])
    image = torch.rand(1, 16, 16, 16)
    some = [Augmentation(seed, (16, 16, 16)) for seed in range(300)]
    still = [a for a in some if a.matrix is None]
    assert 0.6 < len(still) / len(some) < 0.8  # 70 % of 300: standard deviation 2.6 %
    assert all(a.margin == (0, 0, 0) for a in still)
    results = [a(image, label) for a in still]
    assert all(torch.equal(moved, label) for _, moved in results)
    changed = sum(not torch.equal(seen, image) for seen, _ in results)
    # Seven changes of probability 0.1, 4 × 0.15, 0.1 and 0.3 leave 0.9² · 0.85⁴ · 0.7 = 30 % alone.
    assert 0.6 < changed / len(still) < 0.8


@pytest.mark.parametrize("patch", [(16, 20, 12), (40, 32)])
def test_a_sample_is_a_function_of_its_seed(patch: tuple[int, ...]) -> None:
    for seed in range(40):
        a, b = Augmentation(seed, patch), Augmentation(seed, patch)
        image = torch.rand(2, *box(a, patch))
        kept = image.clone()
        torch.manual_seed(seed)
        np.random.seed(seed)
        first, _ = a(image, (image[0] > 0.5).to(torch.uint8))
        torch.manual_seed(999)
        np.random.seed(999)
        second, _ = b(image, (image[0] > 0.5).to(torch.uint8))
        assert torch.equal(first, second)
        assert torch.equal(image, kept)  # the caller's patch is not changed
        assert type(first) is torch.Tensor
        assert torch.isfinite(first).all()


def test_an_image_of_one_value_stays_finite() -> None:
    image, label = torch.full((1, 16, 16), -1.0), torch.zeros(16, 16, dtype=torch.uint8)
    for seed in range(60):
        augmentation = Augmentation(seed, (16, 16))
        size = box(augmentation, (16, 16))
        seen, _ = augmentation(torch.full((1, *size), -1.0), torch.zeros(size, dtype=torch.uint8))
        assert torch.isfinite(seen).all()
        assert seen.shape == image.shape
        assert label.shape == seen.shape[1:]
