"""Deep supervision against nnU-Net's rule and PyTorch; a study's loss and its options."""

import pytest
import torch
from torch.nn import functional as F

from common.errors import StudyError
from common.labels import IGNORE
from common.losses import build_loss
from common.losses.deep_supervision import DeepSupervision, head_weights, nearest
from common.losses.distribution import CELoss
from common.losses.overlap import DiceLoss
from common.study import Study, load_study


# nnU-Net: 1/2^i, the last one 0, divided by the sum.
@pytest.mark.parametrize(
    ("heads", "weights"),
    [(1, [1]), (2, [1, 0]), (3, [2 / 3, 1 / 3, 0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])],
)
def test_head_weights_are_nnunets(heads, weights):
    assert head_weights(heads) == pytest.approx(weights)


def test_deep_supervision_is_the_weighted_sum_over_its_outputs(sample):
    logits, target = sample(3, (8, 8, 4))
    heads = [logits, sample(3, (4, 4, 2), 1)[0], torch.full((2, 3, 2, 2, 1), torch.nan)]
    small = F.interpolate(target[:, None].double(), size=(4, 4, 2), mode="nearest-exact")[:, 0].long()
    expected = (2 * F.cross_entropy(heads[0], target) + F.cross_entropy(heads[1], small)) / 3
    torch.testing.assert_close(DeepSupervision(CELoss())(heads, target), expected)
    torch.testing.assert_close(DeepSupervision(CELoss())(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("size", [(4, 6, 5), (2, 3, 5), (3, 7, 4)])
def test_nearest_is_torchs(size, sample):
    target = sample(5, (8, 12, 5))[1]
    expected = F.interpolate(target[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
    assert torch.equal(nearest(target, torch.Size(size)), expected)


def test_voxels_without_a_label_have_none_on_coarser_grids(sample):
    logits, target = sample(3, (8, 8, 4))
    target[:, :4] = IGNORE
    heads = [logits.requires_grad_(), sample(3, (4, 4, 2), 1)[0].requires_grad_()]
    DeepSupervision(DiceLoss(), weights=(1, 1))(heads, target).backward()
    for head, n in zip(heads, (4, 2), strict=True):
        assert head.grad[:, :, :n].abs().max() == 0
        assert head.grad[:, :, n:].abs().max() > 0


def test_the_studys_loss_takes_the_nets_outputs(sample):
    study = Study.model_validate(
        {
            "name": "s", "data": {"labels": ["a", "b"]}, "plan": {"patch": [16, 16, 16]}, "training": {"steps": 1},
            "loss": {"name": "dice_ce", "ce": 0.5, "class_weights": [1, 2, 2]},
        }
    )  # fmt: skip
    logits, target = sample()
    expected = DiceLoss()(logits, target) + 0.5 * CELoss(class_weights=(1, 2, 2))(logits, target)
    torch.testing.assert_close(build_loss(study, torch.nn.Identity())(logits, target), expected)


def test_the_studys_class_weights_are_counted_before_training():
    study = Study.model_validate(
        {
            "name": "s", "data": {"labels": ["a", "b"]}, "plan": {"patch": [16, 16, 16]}, "training": {"steps": 1},
            "loss": {"name": "ce", "class_weights": [1, 2]},
        }
    )  # fmt: skip
    with pytest.raises(StudyError, match=r"2 numbers.*3 classes.*a, b"):
        build_loss(study, torch.nn.Identity())


def test_a_negative_weight_is_an_error_that_names_the_key(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: s\ndata: {labels: [a]}\nplan: {patch: [16, 16, 16]}\ntraining: {steps: 1}\n"
        "loss: {name: dice_ce, dice: -1}\n"
    )
    with pytest.raises(StudyError, match=r"study.yaml:5: loss\.dice: .*\b0\b"):
        load_study(path)
