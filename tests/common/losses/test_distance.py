"""Losses on distances against MONAI, scipy and closed forms."""

import monai.losses
import numpy as np
import pytest
import torch
from scipy import ndimage

from common.labels import IGNORE
from common.losses.distance import BoundaryLoss, HausdorffLoss
from common.losses.maps import signed_distance, surface_distance


def blobs(size, labels=(1, 2)):
    """A box of each label in each of two items, somewhere else each time."""
    target = torch.zeros(2, *size, dtype=torch.int64)
    for item in range(2):
        for i, label in enumerate(labels):
            target[(item, *(slice(1 + item + 3 * i, 4 + 3 * i) for _ in size))] = label
    return target


@pytest.mark.parametrize("size", [(9, 10), (8, 9, 8)])
@pytest.mark.parametrize("background", [False, True])
def test_boundary_is_monais(size, background, sample):
    logits, target = sample(size=size)[0], blobs(size)
    theirs = monai.losses.BoundaryLoss(include_background=background, to_onehot_y=True, softmax=True)
    # MONAI's distances are fp32.
    expected = theirs(logits, target[:, None]).double()
    torch.testing.assert_close(BoundaryLoss(background=background)(logits, target), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 10), (8, 9, 8)])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_is_monais(size, background, alpha, sample):
    logits, target = sample(size=size)[0], blobs(size)
    theirs = monai.losses.HausdorffDTLoss(
        include_background=background, to_onehot_y=True, softmax=True, alpha=alpha, batch=True
    )
    expected = theirs(logits, target[:, None]).double()
    ours = HausdorffLoss(background=background, alpha=alpha)(logits, target)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_distances_of_a_slab_are_counted():
    mask = np.zeros((3, 9), bool)
    mask[:, 3:7] = True
    assert signed_distance(mask)[1].tolist() == [3, 2, 1, 0, -1, -1, 0, 1, 2]
    assert surface_distance(mask)[1].tolist() == [3, 2, 1, 1, 2, 2, 1, 1, 2]


def test_signed_distances_of_a_mask_and_its_complement():
    """φ(A) = 1 − φ(not A): what is inside of one is outside of the other, and each begins on its own side."""
    mask = np.random.default_rng(0).random((11, 12, 5)) < 0.3
    np.testing.assert_allclose(signed_distance(mask) + signed_distance(~mask), 1)
    whole = np.ones((3, 4), bool)
    assert set(signed_distance(whole).ravel()) == {-1}
    assert set(signed_distance(~whole).ravel()) == {1}
    assert set(surface_distance(whole).ravel()) == set(surface_distance(~whole, 1).ravel()) == {1}


def test_boundary_of_four_pixels_by_hand(four_pixels):
    """φ of the upper row is 0, of the lower row 1: the mean of 0.2 and 0.5 over four pixels."""
    assert BoundaryLoss()(*four_pixels).item() == pytest.approx(0.7 / 4)
    # Without the last pixel's label three are left; (1, 0) is 1 away from (0, 0).
    logits, target = four_pixels
    target[0, 1, 1] = IGNORE
    assert BoundaryLoss()(logits, target).item() == pytest.approx(0.2 / 3)


def test_hausdorff_of_four_pixels_by_hand(four_pixels):
    """Only the first pixel is above ½: d_p = 1, 1, 1, √2; d_t = 1 everywhere; errors 0.2, 0.5, 0.2, 0.5."""
    expected = (0.04 * 2 + 0.25 * 2 + 0.04 * 2 + 0.25 * 3) / 4
    assert HausdorffLoss()(*four_pixels).item() == pytest.approx(expected)


def test_a_label_that_is_nowhere_is_one_voxel_away(sample):
    logits, _ = sample(2, (5, 6))
    nothing = torch.zeros(2, 5, 6, dtype=torch.int64)
    p = torch.softmax(logits, 1)[:, 1]
    torch.testing.assert_close(BoundaryLoss()(logits, nothing), p.mean())
    found = torch.from_numpy(np.stack([surface_distance(item, 0) for item in (p > 0.5).numpy()]))
    torch.testing.assert_close(HausdorffLoss()(logits, nothing), (p**2 * (found**2 + 1)).mean())


def test_a_far_error_costs_more_than_a_near_one():
    target = torch.zeros(1, 20, 20, dtype=torch.int64)
    target[0, :5] = 1
    logits = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).double() * 20
    for loss in (BoundaryLoss(), HausdorffLoss()):
        costs = []
        for row in (6, 10, 18):
            wrong = logits.clone()
            wrong[0, 1, row, 10] += 40
            costs.append(loss(wrong, target).item())
        assert costs == sorted(costs)
        assert costs[0] < costs[2]


def test_distances_are_measured_by_scipy_in_voxels(sample):
    """A whole loss without MONAI: φ from the definition by nearest voxels, by brute force."""
    logits, target = sample(2, (7, 6))[0], blobs((7, 6), (1,))
    places = np.argwhere(np.ones((7, 6), bool))
    expected = 0.0
    for p, mask in zip(torch.softmax(logits, 1)[:, 1].numpy(), target.numpy() == 1, strict=True):
        far = np.linalg.norm(places[:, None] - places[None], axis=-1)
        flat = mask.ravel()
        to_inside, to_outside = far[:, flat].min(1), far[:, ~flat].min(1)
        expected += (p.ravel() * np.where(flat, 1 - to_outside, to_inside)).mean() / 2
    assert BoundaryLoss()(logits, target).item() == pytest.approx(expected)
    assert ndimage.distance_transform_edt(target[0].numpy()).max() > 1  # the box has an inside
