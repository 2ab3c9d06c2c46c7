"""What every metric says of masks that are empty, equal or not annotated; and that all of them are told of."""

import math
from typing import Any

import numpy as np
import pytest

import client.metrics
from client.metrics import measure
from common.labels import IGNORE
from common.metrics import NSD, Metric
from common.names import METRICS

SPACING = (0.5, 2.0, 4.0)
DIAGONAL = math.hypot(8 * 0.5, 6 * 2.0, 5 * 4.0)
NONE = math.nan

# By metric: in neither map, in the prediction only, in the truth only, equal. The mask has 2 x 2 x 2 voxels of 4 mm³.
RULES = {
    "dice": (NONE, 0, 0, 1),
    "iou": (NONE, 0, 0, 1),
    "sensitivity": (NONE, NONE, 0, 1),
    "precision": (NONE, 0, NONE, 1),
    "hd95": (NONE, DIAGONAL, DIAGONAL, 0),
    "assd": (NONE, DIAGONAL, DIAGONAL, 0),
    "nsd": (NONE, 0, 0, 1),
    "volume_error": (NONE, NONE, -1, 0),
    "volume_difference": (NONE, 0.032, 0.032, 0),
    "lesion_f1": (NONE, 0, 0, 1),
}


def every() -> dict[str, Metric]:
    return {name: METRICS.get(name)() for name in METRICS.names()}


def maps() -> tuple[Any, Any]:
    empty = np.zeros((8, 6, 5), np.uint8)
    some = empty.copy()
    some[2:4, 2:4, 1:3] = 1
    return empty, some


@pytest.mark.parametrize("name", METRICS.names())
def test_the_rule_for_empty_masks(name: str) -> None:
    empty, some = maps()
    situations = [(empty, empty), (some, empty), (empty, some), (some, some)]
    found = [measure(p, t, SPACING, ("a",), every())[name][0] for p, t in situations]
    np.testing.assert_allclose(found, RULES[name])
    metric = METRICS.get(name)()
    assert found[3] == metric.ideal
    for value in found:
        assert math.isnan(value) or metric.least <= value <= (math.inf if metric.most is None else metric.most)


def test_every_name_has_a_measure_and_a_rule() -> None:
    assert set(client.metrics._MEASURES) == set(METRICS.names()) == set(RULES)


def test_each_label_for_itself_and_with_its_own_tolerance() -> None:
    prediction, truth = (np.zeros((12, 9, 7), np.uint8) for _ in range(2))
    truth[1:5, 1:5, 1:4], prediction[1:5, 1:5, 2:5] = 1, 1
    truth[7:11, 1:5, 1:4] = prediction[7:11, 1:5, 1:4] = 3
    metrics = {**every(), "nsd": NSD(tolerance={"a": 3.0, "b": 1.0, "c": 1.0})}
    found = measure(prediction, truth, (1.0, 1.0, 3.0), ("a", "b", "c"), metrics)
    assert found["nsd"][0] == 1.0
    assert measure(prediction, truth, (1.0, 1.0, 3.0), ("a", "b", "c"), {"nsd": NSD(tolerance=2.9)})["nsd"][0] < 1
    for name, values in found.items():
        alone = measure((prediction == 3).astype(np.uint8), (truth == 3).astype(np.uint8), (1, 1, 3), ("x",), every())
        assert math.isnan(values[1])
        assert values[2] == alone[name][0] == metrics[name].ideal


def test_voxels_without_a_label_are_in_neither_map() -> None:
    rng = np.random.default_rng(2)
    prediction, truth = (rng.random((2, 14, 11, 9)) < 0.3).astype(np.uint8)
    sparse = truth.copy()
    sparse[:, 6:] = IGNORE
    cut = prediction.copy()
    cut[:, 6:] = 0
    truth[:, 6:] = 0
    assert measure(prediction, sparse, SPACING, ("a",), every()) == measure(cut, truth, SPACING, ("a",), every())


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        measure(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), (1, 1), ("a",), every())


def test_volumes_are_those_of_the_voxels() -> None:
    prediction, truth = np.zeros((2, 20, 20, 20), np.uint8)
    truth[:10, :10, :10] = 1  # 1000 voxels of 0.5 x 2 x 4 mm: 4 ml
    prediction[:10, :10, :9] = 1
    found = measure(prediction, truth, SPACING, ("a",), every())
    assert found["volume_error"][0] == pytest.approx(-0.1)
    assert found["volume_difference"][0] == pytest.approx(0.4)
