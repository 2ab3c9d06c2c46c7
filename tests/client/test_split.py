"""The division by patient: counts in closed form, and what must never move."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.split import PARTS, assign, split, targets
from common.errors import DataError
from common.study_evaluation import Evaluation

DEFAULT = Evaluation()
PATIENTS = [f"patient-{i:03d}" for i in range(50)]


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (0, (0, 0, 0)),
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (5, (3, 1, 1)),
        (8, (4, 2, 2)),
        (232, (140, 46, 46)),
    ],
)
def test_target_numbers(patients: int, expected: tuple[int, int, int]) -> None:
    assert tuple(targets(patients, DEFAULT)[part] for part in PARTS) == expected


@given(
    st.integers(0, 400),
    st.floats(0, 0.98).flatmap(lambda v: st.tuples(st.just(v), st.floats(0, max(0.0, 0.99 - v)))),
)
def test_targets_always_add_up(patients: int, shares: tuple[float, float]) -> None:
    target = targets(patients, Evaluation(validation=shares[0], test=shares[1]))
    assert sum(target.values()) == patients
    assert min(target.values()) >= 0
    if patients >= 1:
        assert target["train"] >= 1
    if patients >= 3:
        assert (target["validation"] > 0) == (shares[0] > 0)
        assert (target["test"] > 0) == (shares[1] > 0)


def test_order_and_number_of_cases_do_not_matter() -> None:
    assert assign(PATIENTS, 7, DEFAULT) == assign(PATIENTS[::-1] + PATIENTS[:9], 7, DEFAULT)
    assert assign(PATIENTS, 7, DEFAULT) != assign(PATIENTS, 8, DEFAULT)


@given(st.lists(st.sampled_from(PATIENTS), unique=True), st.lists(st.sampled_from(PATIENTS), unique=True))
def test_later_patients_move_nobody(first: list[str], later: list[str]) -> None:
    before = assign(first, 3, DEFAULT)
    after = assign(first + later, 3, DEFAULT, before)
    assert {p: after[p] for p in first} == before
    assert set(after) == {*first, *later}


def test_parts_grow_towards_their_shares() -> None:
    parts = assign(PATIENTS[:10], 1, DEFAULT)
    for number in range(11, 51):
        parts = assign(PATIENTS[:number], 1, DEFAULT, parts)
    counts = {part: list(parts.values()).count(part) for part in PARTS}
    assert counts == {"train": 30, "validation": 10, "test": 10}


def test_kept_with_the_site_and_not_by_its_name(tmp_path: Path) -> None:
    one, two = tmp_path / "a-site", tmp_path / "another"
    first = split(PATIENTS[:20], 1, DEFAULT, use="train", home=one)
    assert first == split(PATIENTS[:20], 1, DEFAULT, use="train", home=two)
    gone = split(PATIENTS[10:40], 1, DEFAULT, use="train", home=one)
    again = split(PATIENTS, 1, DEFAULT, use="train", home=one)
    assert all(again[p] == part for p, part in {**gone, **first}.items())
    other = split(PATIENTS[:20], 2, DEFAULT, use="train", home=one)
    assert other == assign(PATIENTS[:20], 2, DEFAULT)
    assert len(json.loads((one / "split.json").read_text())) == 2


def test_a_test_site_keeps_everybody_for_the_test(tmp_path: Path) -> None:
    assert set(split(PATIENTS, 1, DEFAULT, use="test", home=tmp_path).values()) == {"test"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", '{"seed 1": {"p": "training"}}', "[1]"])
def test_a_damaged_file_is_not_silently_divided_anew(content: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"split\.json.*restore it from a backup"):
        split(PATIENTS, 1, DEFAULT, use="train", home=tmp_path)
