"""Steps as a study states them: what is refused, with its line; order; what people are told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from common.cards import card_of
from common.cli import run
from common.docstrings import descriptions, summary
from common.documents import Document
from common.errors import StudyError
from common.names import POSTPROCESS
from common.postprocess import Postprocess
from common.study import Study, study_of
from common.study_check import check_study

STUDY = "name: tiny\ndata: {labels: [liver, spleen], dimensions: %d}\nplan:\n  patch: %s\ntraining: {steps: 1}\n"


def text(steps: str, dimensions: int = 3) -> str:
    return STUDY % (dimensions, [32] * dimensions) + f"postprocess:\n{steps}"


def study(steps: str, dimensions: int = 3) -> Study:
    return study_of(Document(Path("s.yaml"), text(steps, dimensions)))


@pytest.mark.parametrize(
    ("steps", "dimensions", "says"),
    [
        ("  - largest_component\n  - {name: closing, radius: 2, labels: [liver, spline]}\n", 3,
         "s.yaml:8: postprocess.1.labels.1: unknown label 'spline'; data.labels has liver, spleen. "
         "Did you mean 'spleen'?"),
        ("  - name: fill_holes\n    labels:\n      - liver\n      - lung\n", 3, "s.yaml:10: postprocess.0.labels.1: "),
        ("  - {name: largest_component, connectivity: 26}\n", 2,
         "s.yaml:7: postprocess.0.connectivity: is 26, but in 2D a voxel has 4 or 8 neighbours"),
        ("  - {name: remove_small, volume: 5, connectivity: 8}\n", 3, "in 3D a voxel has 6 or 18 or 26 neighbours"),
        ("  - {name: largest_component, connectivity: 12}\n", 3, "s.yaml:7: postprocess.0.connectivity: 12 is not one"),
        ("  - {name: fill_holes, axis: 0}\n", 2, "s.yaml:7: postprocess.0.axis: is for 3D"),
        ("  - fill_holes\n  - crf\n", 3,
         "s.yaml:8: postprocess.1: crf works on probabilities, so it must stand before fill_holes"),
        ("  - {name: crf, labels: [liver]}\n", 3, "s.yaml:7: postprocess.0.labels: unknown key"),
        ("  - largest_componet\n", 3, "s.yaml:7: postprocess.0: unknown post-processing step 'largest_componet'"),
        ("  - remove_small\n", 3, "postprocess.0.volume: this key is required"),
        ("  - {name: closing, radius: 0}\n", 3, "s.yaml:7: postprocess.0.radius: 0 is outside the allowed range"),
        ("  - {name: largest_component, labels: []}\n", 3, "s.yaml:7: postprocess.0.labels: 0 entries; at least 1"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_is_named_with_its_line(steps: str, dimensions: int, says: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(steps, dimensions)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_steps_are_part_of_the_digest_and_survive_the_canonical_form() -> None:
    one = study("  - {name: largest_component, labels: [liver]}\n  - {name: remove_small, volume: 10}\n")
    again = Study.model_validate_json(one.canonical())
    assert again.digest() == one.digest()
    assert again.postprocess[0].options == {"labels": ("liver",), "connectivity": None, "keep": 1}
    assert one.digest() != study("  - {name: remove_small, volume: 10}\n").digest()


def test_steps_are_applied_in_the_studys_order() -> None:
    label = np.zeros((9, 9), np.uint8)
    label[1:6, 1:6] = 1
    label[3, 3] = 0  # a hole
    label[3, 7] = label[7, 7] = 1  # two specks; the first is a voxel away from the rest
    close, largest = "  - {name: closing, radius: 1}\n", "  - largest_component\n"
    first_close = Postprocess(study(close + largest, 2)).label_map(label, (1.0, 1.0))
    first_largest = Postprocess(study(largest + close, 2)).label_map(label, (1.0, 1.0))
    assert first_close[3, 7] == 1
    assert first_largest[3, 7] == 0
    assert first_close[7, 7] == first_largest[7, 7] == 0


def test_the_image_is_wanted_only_by_steps_on_probabilities() -> None:
    assert Postprocess(study("  - crf\n  - fill_holes\n")).sees_image
    without = Postprocess(study("  - fill_holes\n"))
    assert not without.sees_image
    values = torch.rand(3, 4, 4, 4)
    assert without.probabilities(values, torch.zeros(1, 4, 4, 4), (1.0, 1.0, 1.0)) is values


@pytest.mark.parametrize("name", POSTPROCESS.names())
def test_every_step_says_what_it_is(name: str) -> None:
    target = POSTPROCESS.get(name)
    card = card_of(target)
    assert all((card.title, card.source, card.suited))
    assert summary(target).endswith(".")
    assert set(POSTPROCESS.options(name).model_fields) == set(descriptions(target))


def test_explain_says_what_is_applied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = "  - {name: largest_component, labels: [liver], connectivity: 6}\n  - {name: remove_small, volume: 30}\n"
    path = tmp_path / "s.yaml"
    path.write_text(text(steps) + "evaluation: {mirror: true, scheme: {method: fixed_point, margin: 12}}\n")
    assert run(["study", "explain", str(path)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "inference  fixed_point: Coarse to fine", "margin: 12  (Added to the box", "mirror images",
        "then  largest_component: Keep the largest connected component", 'labels: ["liver"]  (Names', "connectivity: 6",
        "then  remove_small: Remove the connected components", "volume: 30  (Smallest that stays, in mm³;",
    ):  # fmt: skip
        assert words in printed
    assert run(["study", "explain", "--json", str(path)]) == 0
    known: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert known["postprocess"][0] == {"name": "largest_component", "labels": ["liver"], "connectivity": 6, "keep": 1}
    assert known["inference"]["method"] == "fixed_point"


def test_a_study_without_steps_says_so_in_yaml_too() -> None:
    assert study_of(Document(Path("s"), yaml.safe_dump(yaml.safe_load(text("  []\n"))))).postprocess == ()


def test_check_remarks_that_training_shows_no_mirror_images(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text("  - fill_holes\n") + "net: {name: dynunet, size: small}\nevaluation: {mirror: true}\n")
    remarks = [remark for remark in check_study(path)[1] if "mirror" in remark]
    assert len(remarks) == 1
    assert "s.yaml:9: evaluation.mirror: training shows no mirror images" in remarks[0]
