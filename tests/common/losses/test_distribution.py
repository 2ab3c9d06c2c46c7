"""Losses on distributions against PyTorch, MONAI and closed forms."""

import math

import monai.losses
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from common.labels import IGNORE
from common.losses.distribution import CELoss, EntropyLoss, FocalLoss
from common.losses.maps import border_weights


@pytest.mark.parametrize("class_weights", [None, (0.2, 1.0, 3.0)])
@pytest.mark.parametrize("ignored", [False, True])
def test_cross_entropy_is_torchs(class_weights, ignored, sample):
    logits, target = sample()
    if ignored:
        target[:, 2:4] = IGNORE
    weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, target, weight=weight, ignore_index=IGNORE)
    torch.testing.assert_close(CELoss(class_weights=class_weights)(logits, target), expected)
    torch.testing.assert_close(FocalLoss(gamma=0, class_weights=class_weights)(logits, target), expected)


@pytest.mark.parametrize("kind", [CELoss, FocalLoss])
def test_class_weights_must_be_one_per_class(kind, sample):
    with pytest.raises(ValueError, match=r"2 numbers.*3 classes"):
        kind(class_weights=(1.0, 2.0))(*sample())


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.5])
def test_focal_is_monais(gamma, sample):
    """MONAI takes the mean over the classes as well, of which all but the true one are 0; it computes in fp32."""
    logits, target = sample()
    theirs = monai.losses.FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True)
    expected = 3 * theirs(logits, target[:, None]).double()
    torch.testing.assert_close(FocalLoss(gamma=gamma)(logits, target), expected, rtol=1e-5, atol=1e-6)


def test_four_pixels_by_hand(four_pixels):
    """p of the true class is 0.8, 0.5, 0.8, 0.5."""
    ln = -math.log(0.8), -math.log(0.5)
    assert CELoss()(*four_pixels).item() == pytest.approx(sum(ln) / 2)
    assert FocalLoss()(*four_pixels).item() == pytest.approx((0.2**2 * ln[0] + 0.5**2 * ln[1]) / 2)
    weighted = (2 * ln[0] + 2 * ln[1] + 3 * ln[0] + 3 * ln[1]) / 10
    assert CELoss(class_weights=(3, 2))(*four_pixels).item() == pytest.approx(weighted)
    # Of pixels 2 and 3 nobody said anything: H(0.5) and H(0.2).
    logits, target = four_pixels
    target = torch.tensor([[[1, IGNORE], [IGNORE, 0]]])
    entropy = (math.log(2) + 0.2 * -math.log(0.2) + 0.8 * -math.log(0.8)) / 2
    assert EntropyLoss()(logits, target).item() == pytest.approx(entropy)
    assert EntropyLoss()(*four_pixels).item() == 0


def test_entropy_looks_only_where_there_is_no_label(sample):
    logits, target = sample()
    target[:, 2:4] = IGNORE
    logits.requires_grad_()
    EntropyLoss()(logits, target).backward()
    hidden = (target == IGNORE)[:, None].expand_as(logits)
    assert logits.grad[~hidden].abs().max() == 0
    assert logits.grad[hidden].abs().max() > 0


def test_a_sure_voxel_has_a_slope_of_zero_whatever_gamma():
    logits = torch.tensor([200.0, -200.0]).reshape(1, 2, 1, 1).requires_grad_()
    for gamma in (0, 0.5, 1, 2):
        (slope,) = torch.autograd.grad(FocalLoss(gamma=gamma)(logits, torch.zeros(1, 1, 1, dtype=torch.int64)), logits)
        assert slope.abs().max() == 0


def test_border_weights_between_two_points_are_the_closed_form():
    """On the line between two pixels d1 + d2 is their distance, on its ends beyond them 2·d + that distance."""
    label = np.zeros((9, 30), np.int64)
    label[4, 10] = label[4, 16] = 1
    found = border_weights(label, 10, 5)
    np.testing.assert_allclose(found[4, 11:16], 10 * math.exp(-36 / 50))
    np.testing.assert_allclose(found[4, 20], 10 * math.exp(-((4 + 10) ** 2) / 50))
    assert found[4, 10] == found[4, 16] == 0
    # Objects may be of different labels and touch; a single one has no neighbour to be told apart from.
    label[4, 16] = 2
    np.testing.assert_allclose(border_weights(label, 10, 5), found)
    label[4, 16] = IGNORE
    assert border_weights(label, 10, 5).max() == 0


@pytest.mark.parametrize("shape", [(40, 60), (14, 20, 16)])
def test_border_weights_are_those_of_whole_distance_maps(shape):
    """The boxes around the objects cut off only what weighs less than w0·exp(−25/2)."""
    rng = np.random.default_rng(0)
    label = np.zeros(shape, np.int64)
    for value in (1, 2, 1, 2, 2):
        corner = [rng.integers(0, n - 4) for n in shape]
        label[tuple(slice(c, c + rng.integers(2, 5)) for c in corner)] = value
    objects = [ndimage.label(label == value) for value in (1, 2)]
    away = [ndimage.distance_transform_edt(o != n) for o, count in objects for n in range(1, count + 1)]
    assert len(away) >= 3
    first, second = np.sort(away, axis=0)[:2]
    expected = 10 * np.exp(-((first + second) ** 2) / (2 * 1.5**2)) * (label == 0)
    np.testing.assert_allclose(border_weights(label, 10, 1.5), expected, atol=10 * math.exp(-12.5))


def test_border_weights_enter_the_mean(sample):
    logits, target = sample(size=(12, 12))
    target[:] = 0
    target[:, 3, 3:6], target[:, 7:9, 3], target[1, 11] = 1, 2, IGNORE
    maps = np.stack([border_weights(label.numpy(), 10, 5) for label in target])
    w = (torch.tensor([1.0, 2.0, 3.0, 0.0])[target.clamp(max=3)].double() + torch.from_numpy(maps)) * (target != IGNORE)
    each = F.cross_entropy(logits, target, reduction="none", ignore_index=IGNORE)
    loss = CELoss(class_weights=(1, 2, 3), border=10)(logits, target)
    torch.testing.assert_close(loss, (w * each).sum() / w.sum())
    assert loss != CELoss(class_weights=(1, 2, 3))(logits, target)
