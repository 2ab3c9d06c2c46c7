"""Edges under a mask: by hand on a step, and on bodies whose masks were moved."""

import numpy as np
import pytest

from client.data.gate.mirrors import edges
from client.data.gate.placement import ALIKE, MIRRORED, check_placement
from tests.client.data.gate.made_up import body, case_of


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_mask_is_told(axis: int) -> None:
    image, truth = body(4)
    assert check_placement(case_of(4), edges(image, truth, 2)) == []
    (found,) = check_placement(case_of(4), edges(image, np.ascontiguousarray(np.flip(truth, axis)), 2))
    assert found.code == "mask-mirrored"
    assert ("left–right", "front–back", "up–down")[axis] in found.what


def test_the_way_back_is_named() -> None:
    image, truth = body(6)
    moved = edges(image, np.roll(truth, 5, axis=0), 2)
    assert moved is not None
    assert (moved["along"], moved["by"]) == (0, -5)


def test_a_mask_like_its_mirror_image_is_not_judged() -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[:, 12:30, 10:30] = 1
    truth = np.zeros((40, 40), np.uint8)
    truth[10:28, 10:30] = 1
    found = edges(image, truth, 1)
    assert found is not None
    # 12 … 29 is the mirror image of 10 … 27: 16 of 18 rows are in both.
    assert found["alike"] == pytest.approx([8 / 9, 1.0])
    assert found["flips"][0] > MIRRORED
    assert found["alike"][0] > ALIKE
    assert check_placement(case_of(1), found) == []


def test_no_mask_no_judgement() -> None:
    image, truth = body(4)
    assert edges(image, np.zeros_like(truth), 2) is None
    assert edges(image, np.ones_like(truth), 2) is None
    assert check_placement(case_of(4), None) == []
