"""Dice against two other libraries, and the rule for empty masks."""

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.metrics.meandice import DiceMetric

from client.metrics import dice, measure
from common.labels import IGNORE
from common.names import METRICS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(7, 9, 8), (31, 17)])
def test_dice_against_simpleitk_and_monai(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, 4, shape).astype(np.uint8)
    truth = np.where(rng.random(shape) < 0.6, prediction, rng.integers(0, 4, shape)).astype(np.uint8)
    mine = dice(prediction, truth, 3)

    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(prediction), sitk.GetImageFromArray(truth))
    assert mine == pytest.approx([overlap.GetDiceCoefficient(label) for label in (1, 2, 3)], abs=1e-12)

    one_hot = [torch.stack([torch.from_numpy(a == k) for k in range(4)])[None] for a in (prediction, truth)]
    other = DiceMetric(include_background=False, reduction="none")(*one_hot)
    assert mine == pytest.approx(other[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(7, 9, 8), (31, 17)])
def test_all_overlaps_against_simpleitk(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, 4, shape).astype(np.uint8)
    truth = np.where(rng.random(shape) < 0.6, prediction, rng.integers(0, 4, shape)).astype(np.uint8)
    names = ("dice", "iou", "sensitivity", "precision", "volume_error")
    metrics = {name: METRICS.get(name)() for name in names}
    mine = measure(prediction, truth, (1.0,) * len(shape), ("a", "b", "c"), metrics)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(prediction), sitk.GetImageFromArray(truth))
    for value in (1, 2, 3):
        theirs = {
            "dice": overlap.GetDiceCoefficient(value),
            "iou": overlap.GetJaccardCoefficient(value),
            "sensitivity": 1 - overlap.GetFalseNegativeError(value),
            "precision": 1 - overlap.GetFalseDiscoveryRate(value),
            # Its volume similarity is 2 (|P| − |T|) / (|P| + |T|).
            "volume_error": 2 * (v := overlap.GetVolumeSimilarity(value)) / (2 - v),
        }
        assert {n: mine[n][value - 1] for n in names} == pytest.approx(theirs, abs=1e-12)


def test_dice_of_masks_that_can_be_counted() -> None:
    prediction = np.array([[1, 1, 0], [0, 2, 2]], np.uint8)
    truth = np.array([[1, 0, 0], [0, 2, 2]], np.uint8)
    assert dice(prediction, truth, 2) == (2 * 1 / (2 + 1), 1.0)


def test_the_rule_for_empty_masks() -> None:
    empty = np.zeros((4, 4), np.uint8)
    some = np.eye(4, dtype=np.uint8)
    assert math.isnan(dice(empty, empty, 1)[0])
    assert dice(some, empty, 1) == (0.0,)
    assert dice(empty, some, 1) == (0.0,)
    assert dice(some, some, 1) == (1.0,)
    both = dice(some, some, 2)
    assert both[0] == 1.0
    assert math.isnan(both[1])


def test_voxels_without_a_label_are_in_neither_map() -> None:
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 3, (2, 9, 20)).astype(np.uint8)
    sparse = truth.copy()
    sparse[:, 12:] = IGNORE
    assert dice(prediction, sparse, 2) == dice(prediction[:, :12], truth[:, :12], 2)
    sparse[truth == 2] = IGNORE
    sparse[0, 0] = prediction[0, 0] = 0
    prediction[sparse != IGNORE] %= 2
    assert math.isnan(dice(prediction, sparse, 2)[1])
    assert all(math.isnan(d) for d in dice(prediction, np.full_like(truth, IGNORE), 2))


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        dice(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 1)
