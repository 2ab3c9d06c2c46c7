"""Overlap losses against MONAI, closed forms and each other."""

import monai.losses
import pytest
import torch

from common.labels import IGNORE
from common.losses.overlap import DiceLoss, FocalTverskyLoss, GeneralizedDiceLoss, JaccardLoss, TverskyLoss


def monais(kind, smooth, **options):
    return kind(softmax=True, to_onehot_y=True, smooth_nr=smooth, smooth_dr=smooth, **options)


every_way = [
    pytest.mark.parametrize("background", [False, True]),
    pytest.mark.parametrize("batch", [False, True]),
    pytest.mark.parametrize("size", [(8, 9), (6, 7, 5)]),
]


def in_every_way(test):
    for mark in every_way:
        test = mark(test)
    return test


@in_every_way
@pytest.mark.parametrize("squared", [False, True])
def test_dice_is_monais(background, batch, size, squared, sample):
    logits, target = sample(size=size)
    target[0][target[0] == 2] = 0  # a label that one item lacks
    theirs = monais(monai.losses.DiceLoss, 1e-3, include_background=background, batch=batch, squared_pred=squared)
    ours = DiceLoss(background=background, batch=batch, smooth=1e-3, squared=squared)
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]))


@in_every_way
def test_jaccard_is_monais(background, batch, size, sample):
    logits, target = sample(size=size)
    target[0][target[0] == 2] = 0
    # MONAI doubles the ratio's two sides before it smooths.
    theirs = monais(monai.losses.DiceLoss, 2e-3, include_background=background, batch=batch, jaccard=True)
    ours = JaccardLoss(background=background, batch=batch, smooth=1e-3)
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]))


@in_every_way
def test_tversky_is_monais(background, batch, size, sample):
    logits, target = sample(size=size)
    target[0][target[0] == 2] = 0
    theirs = monais(monai.losses.TverskyLoss, 1e-3, include_background=background, batch=batch, alpha=0.2, beta=0.9)
    ours = TverskyLoss(background=background, batch=batch, smooth=1e-3, alpha=0.2, beta=0.9)
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]))


@in_every_way
@pytest.mark.parametrize("weights", ["uniform", "simple", "square"])
def test_generalised_dice_is_monais(background, batch, size, weights, sample):
    """Without smoothing, which MONAI adds to sums that it has not scaled; an absent label both weigh alike."""
    logits, target = sample(size=size)
    target[0][target[0] == 2] = 0
    if batch:
        target[1][target[1] == 2] = 1
    theirs = monais(
        monai.losses.GeneralizedDiceLoss, 0, include_background=background, batch=batch, w_type=weights
    )  # fmt: skip
    ours = GeneralizedDiceLoss(background=background, batch=batch, weights=weights, smooth=1e-15)
    # MONAI's weights are fp32.
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]), rtol=1e-6, atol=1e-6)


def test_generalised_dice_by_hand(four_pixels):
    # Background: Σpt = 1.3, Σp = 2, Σt = 3 (one pixel is label 1); label 1: 0.8, 2, 1.
    logits, target = four_pixels[0], torch.tensor([[[1, 0], [0, 0]]])
    for weights, w in (("uniform", (1, 1)), ("simple", (1 / 3, 1)), ("square", (1 / 9, 1))):
        expected = 1 - 2 * (w[0] * 1.8 + w[1] * 0.8) / (w[0] * 5 + w[1] * 3)
        loss = GeneralizedDiceLoss(weights=weights, smooth=1e-12)
        assert loss(logits, target).item() == pytest.approx(expected)


def test_smoothing_does_not_swamp_the_weights_of_large_labels():
    """1/f² of 10^5 voxels is 10^-10; a loss that smoothed before it scaled would always be near 0."""
    target = torch.zeros(1, 400, 500, dtype=torch.int64)
    target[:, 200:] = 1
    undecided = torch.zeros(1, 2, 400, 500)
    # p = ½ everywhere, half of it right: Dice is ½.
    assert GeneralizedDiceLoss()(undecided, target).item() == pytest.approx(0.5, abs=1e-4)


def test_four_pixels_by_hand(four_pixels):
    """Σpt = 1.3, Σp = 2, Σt = 2, Σp² = 1.18; FP = FN = 0.7."""
    for loss, expected in (
        (DiceLoss(smooth=1e-12), 1 - 2.6 / 4),
        (DiceLoss(smooth=1e-12, squared=True), 1 - 2.6 / 3.18),
        (JaccardLoss(smooth=1e-12), 1 - 1.3 / 2.7),
        (TverskyLoss(smooth=1e-12), 1 - 1.3 / 2),
        (TverskyLoss(smooth=1e-12, alpha=1, beta=2), 1 - 1.3 / (1.3 + 0.7 + 1.4)),
        (FocalTverskyLoss(smooth=1e-12, gamma=2), (1 - 1.3 / 2) ** 0.5),
    ):
        assert loss(*four_pixels).item() == pytest.approx(expected)


def test_alpha_weighs_false_positives_and_beta_false_negatives():
    """Salehi's convention: TP 1, FP 1, FN 2; α = 1 alone gives 1/2, β = 1 alone 2/3."""
    target = torch.tensor([[[1, 1, 1, 0, 0]]])
    found = torch.tensor([[[1, 0, 0, 1, 0]]])
    logits = 60 * torch.nn.functional.one_hot(found, 2).movedim(-1, 1).double()
    least = 1e-12
    assert TverskyLoss(alpha=1, beta=least, smooth=least)(logits, target).item() == pytest.approx(1 / 2)
    assert TverskyLoss(alpha=least, beta=1, smooth=least)(logits, target).item() == pytest.approx(2 / 3)


def test_the_family_agrees_with_itself(sample):
    logits, target = sample()
    dice = DiceLoss(smooth=2e-3)(logits, target)
    torch.testing.assert_close(TverskyLoss(alpha=0.5, beta=0.5, smooth=1e-3)(logits, target), dice)
    tversky = TverskyLoss(smooth=1e-3)(logits, target)
    torch.testing.assert_close(FocalTverskyLoss(gamma=1, smooth=1e-3)(logits, target), tversky)
    # One label: IoU = D / (2 − D).
    logits, target = sample(2)
    dice, jaccard = (1 - kind(smooth=1e-12)(logits, target) for kind in (DiceLoss, JaccardLoss))
    torch.testing.assert_close(jaccard, dice / (2 - dice))


@pytest.mark.parametrize("kind", [DiceLoss, JaccardLoss, TverskyLoss, FocalTverskyLoss])
def test_a_label_that_is_nowhere_costs_nothing_to_one(kind):
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    certain = torch.tensor([50.0, -50.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert kind()(certain, target).item() == pytest.approx(0, abs=1e-5)
    assert kind()(-certain, target).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", [DiceLoss, JaccardLoss, TverskyLoss, FocalTverskyLoss, GeneralizedDiceLoss])
def test_ignoring_voxels_is_leaving_them_away(kind, sample):
    logits, target = sample(size=(6, 8))
    target[:, :, 5:] = IGNORE
    torch.testing.assert_close(kind()(logits, target), kind()(logits[..., :5], target[..., :5]))
