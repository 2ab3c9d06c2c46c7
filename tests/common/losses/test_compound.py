"""Sums of losses: against MONAI, against their terms, and as a study writes them."""

import json
from pathlib import Path

import jsonschema
import monai.losses
import pytest
import torch

from common.documents import Document
from common.errors import StudyError
from common.losses import build_loss
from common.losses.compound import DiceCELoss, DiceFocalLoss, SumLoss
from common.losses.distance import BoundaryLoss
from common.losses.distribution import CELoss, FocalLoss
from common.losses.overlap import DiceLoss
from common.names import LOSSES
from common.study import Study, load_study, study_of
from common.study_check import check_study
from common.study_explain import facts, words
from common.study_schema import study_schema

WRITTEN = {
    "name": "s", "data": {"labels": ["a", "b"]}, "plan": {"patch": [16, 16, 16]}, "training": {"steps": 1},
    "net": {"name": "dynunet", "size": "small"},
}  # fmt: skip


def study(**parts) -> Study:
    return study_of(Document(Path("study.yaml"), json.dumps(WRITTEN | parts, indent=1)))


def test_dice_ce_is_monais(sample):
    logits, target = sample()
    theirs = monai.losses.DiceCELoss(
        include_background=False, softmax=True, to_onehot_y=True, lambda_dice=0.7, lambda_ce=1.3, batch=True
    )
    torch.testing.assert_close(DiceCELoss(dice=0.7, ce=1.3)(logits, target), theirs(logits, target[:, None]))


def test_dice_focal_is_its_terms(sample):
    logits, target = sample()
    expected = 0.7 * DiceLoss(batch=False)(logits, target) + 1.3 * FocalLoss(gamma=1.5)(logits, target)
    loss = DiceFocalLoss(dice=0.7, focal=1.3, gamma=1.5, batch=False)
    torch.testing.assert_close(loss(logits, target), expected)


def test_a_sum_in_a_study_is_its_terms(sample):
    logits, target = sample()
    terms = ["ce", {"name": "dice", "weight": 0.5, "squared": True}, {"weight": 0.01, "name": "boundary"}]
    of = study(loss={"name": "sum", "terms": terms})
    expected = CELoss()(logits, target) + 0.5 * DiceLoss(squared=True)(logits, target)
    expected += 0.01 * BoundaryLoss()(logits, target)
    torch.testing.assert_close(build_loss(of, torch.nn.Identity())(logits, target), expected)


def test_a_sum_that_is_written_in_another_way_is_the_same_study():
    whole = study(loss="sum")
    again = study_of(Document(Path("s.yaml"), whole.canonical().decode()))
    assert again.digest() == whole.digest() == study(loss={"name": "sum", "terms": ["dice", {"name": "ce"}]}).digest()
    assert whole.digest() != study(loss={"name": "sum", "terms": ["ce", "dice"]}).digest()
    complete = json.loads(whole.canonical())["loss"]["terms"]
    assert [term["name"] for term in complete] == ["dice", "ce"]
    assert complete[0] == {"name": "dice", "weight": 1, **LOSSES.check("dice", {})}
    assert jsonschema.Draft202012Validator(study_schema()).is_valid(json.loads(whole.canonical()))


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ("[{name: dice, smoth: 1}]", r"study.yaml:5: loss.terms.0.smoth: unknown key. Did you mean 'smooth'"),
        ("[dice, {name: tversky, alpha: -1}]", r"loss.terms.1.alpha: -1 is outside the allowed range: above 0"),
        ("[dice, dize]", r"study.yaml:5: loss.terms.1: unknown loss 'dize'.*Did you mean 'dice'"),
        ("[{name: dize}]", r"loss.terms.0.name: unknown loss 'dize'"),
        ("[{name: dice, weight: 0}]", r"loss.terms.0.weight: 0 is outside the allowed range: above 0, at most 1000"),
        ("[{weight: 2}]", r"loss.terms.0.name: this key is required"),
        ("[{name: sum}]", r"loss.terms.0: a sum within a sum"),
        ("[]", r"loss.terms: 0 entries; at least 1 wanted"),
        ("dice", r"loss.terms: must be a list, but is 'dice'"),
    ],
)
def test_a_wrong_term_is_named_by_line_and_key(terms, says, tmp_path):
    path = tmp_path / "study.yaml"
    text = "name: s\ndata: {labels: [a]}\nplan: {patch: [16, 16, 16]}\ntraining: {steps: 1}\n"
    path.write_text(text + f"loss: {{name: sum, terms: {terms}}}\n")
    with pytest.raises(StudyError, match=says):
        load_study(path)


@pytest.mark.parametrize(
    "terms",
    [["dize"], [{"name": "dice", "smoth": 1}], [{"name": "ce", "weight": -1}], ["sum"], [], ["ce"] * 9],
    ids=str,
)
def test_the_schema_refuses_what_the_model_refuses(terms):
    written = WRITTEN | {"loss": {"name": "sum", "terms": terms}}
    assert not jsonschema.Draft202012Validator(study_schema()).is_valid(written)
    with pytest.raises(StudyError):
        study(loss=written["loss"])


def test_class_weights_of_terms_are_counted_before_training():
    of = study(loss={"name": "sum", "terms": ["dice", {"name": "focal", "class_weights": [1, 2]}]})
    with pytest.raises(StudyError, match=r"loss\.terms\.1\.class_weights has 2 numbers.*3 classes.*a, b"):
        build_loss(of, torch.nn.Identity())


def test_explain_lists_the_terms():
    of = study(
        loss={"name": "sum", "terms": ["dice", {"name": "boundary", "weight": 0.01}]},
        data={"labels": ["a"], "ignore": 9},
    )
    said = words(of, facts(of))
    assert "  loss  sum: A weighted sum of other losses." in said
    assert "\n    1 ×  dice: Soft Dice loss, 1 − " in said
    assert "\n      smooth: 1e-05  (s in numerator and denominator.)" in said
    assert "\n    0.01 ×  boundary: Boundary loss: " in said
    assert "voxels of value 9 in the masks have no label" in said


@pytest.mark.parametrize("loss", ["entropy", "{name: sum, terms: [ce, {name: entropy, weight: 0.1}]}"])
def test_check_remarks_on_an_entropy_term_that_has_nothing_to_look_at(loss, tmp_path):
    path = tmp_path / "study.yaml"
    text = "name: s\ndata: {labels: [a]}\nplan: {spacing: [1, 1, 1], patch: [16, 16, 16]}\ntraining: {steps: 1}\n"
    path.write_text(text + f"net: {{name: dynunet, size: small}}\nloss: {loss}\n")
    (remark,) = check_study(path)[1]
    assert "study.yaml:6: loss: entropy acts on voxels without a label" in remark
    path.write_text(path.read_text().replace("labels: [a]", "labels: [a], ignore: 255"))
    assert check_study(path)[1] == []


def test_made_in_python_a_sum_takes_plain_terms(sample):
    logits, target = sample()
    loss = SumLoss(terms=({"name": "ce", "weight": 2.0},))
    torch.testing.assert_close(loss(logits, target), 2 * CELoss()(logits, target))
