"""Faces: made-up heads with a nose are told, those without and other bodies are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data.gate.faces import SURE, check_face, relief
from client.data.volume import Case, Stack
from tests.client.data.gate.made_up import case_of, head

STACK = Stack((Path("s/1"),), (0,), ("1.2",), "1.2.3", "1.2", ("1.2.4",), tuple(map(tuple, np.eye(4))), (2, 2, 1), "CT")
CASE = case_of(1)


@pytest.mark.parametrize("width", [60, 75, 88])
@pytest.mark.parametrize("nose", [18, 25])
def test_a_nose_is_told_a_forehead_is_not(width: float, nose: float) -> None:
    assert relief(head(0, width), (2.5, 2.5, 2.5)) < 4
    assert relief(head(nose, width), (2.5, 2.5, 2.5)) > SURE


@pytest.mark.parametrize("step", [1.0, 2.0, 4.0])
def test_whatever_the_voxel_size(step: float) -> None:
    assert relief(head(22, step=step), (step,) * 3) > SURE
    assert relief(head(0, step=step), (step,) * 3) < SURE


def test_mr_with_noise() -> None:
    random, tissue = np.random.default_rng(3), head(22) > -500
    image = np.where(tissue, random.normal(400, 120, tissue.shape), random.rayleigh(15, tissue.shape))
    assert relief(image.astype(np.float32), (2.5, 2.5, 2.5)) > SURE
    without = np.where(head(0) > -500, random.normal(400, 120, tissue.shape), random.rayleigh(15, tissue.shape))
    assert relief(without.astype(np.float32), (2.5, 2.5, 2.5)) < SURE


def test_what_is_not_a_head() -> None:
    wide = head(25, width=130, wide=360)
    assert relief(wide, (2.5, 2.5, 2.5)) == 0
    cut = head(25)[:, :75]
    assert relief(cut, (2.5, 2.5, 2.5)) == 0
    assert relief(head(25)[30:60, 30:60, 30:60], (2.5, 2.5, 2.5)) == 0
    assert relief(np.zeros((100, 100), np.float32), (1.0, 1.0)) == 0
    assert relief(np.zeros((100, 100, 40), np.float32), (2.5, 2.5, 2.5)) == 0


def of(part: str) -> Case:
    return replace(CASE, images=(replace(STACK, facts={"body_part": part} if part else {}),))


@pytest.mark.parametrize(
    ("case", "height", "modality", "told"),
    [(CASE, 9, "CT", True), (CASE, 9, None, True), (CASE, 6, "CT", False), (CASE, 9, "PT", False),
     (of(""), 9, "MR", True), (of("HEAD"), 6, "CT", True), (of("Brain"), 6, "MR", True), (of("HEAD"), 4, "CT", False),
     (of("KNEE"), 20, "CT", False)],
)  # fmt: skip
def test_the_header_lowers_or_lifts_the_suspicion(case: Case, height: float, modality: str | None, told: bool) -> None:
    found = check_face(case, height, modality)
    assert [f.code for f in found] == (["face"] if told else [])
