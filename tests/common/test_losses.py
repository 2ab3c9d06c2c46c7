"""Losses against MONAI, PyTorch and closed forms."""

import monai.losses
import pytest
import torch
from torch.nn import functional as F

from common.errors import StudyError
from common.losses import build_loss
from common.losses.compound import DiceCELoss
from common.losses.deep_supervision import DeepSupervision, head_weights, nearest
from common.losses.distribution import CELoss
from common.losses.overlap import DiceLoss
from common.names import LOSSES
from common.study import Study, load_study


def sample(classes: int = 3, size: tuple[int, ...] = (6, 7, 5), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, *size, generator=g, dtype=torch.float64)
    return logits, torch.randint(classes, (2, *size), generator=g)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("size", [(8, 9), (6, 7, 5)])
def test_dice_is_monais(background, batch, size):
    logits, target = sample(size=size)
    target[0][target[0] == 2] = 0  # a label that one item lacks
    theirs = monai.losses.DiceLoss(
        include_background=background, batch=batch, softmax=True, to_onehot_y=True, smooth_nr=1e-3, smooth_dr=1e-3
    )
    ours = DiceLoss(background=background, batch=batch, smooth=1e-3)
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]))


def test_dice_of_four_pixels_by_hand():
    # p(foreground) = 0.8, 0.5, 0.2, 0.5; the first two are foreground: 1 − 2·1.3 / (2 + 2).
    p = torch.tensor([0.8, 0.5, 0.2, 0.5], dtype=torch.float64).reshape(1, 1, 2, 2)
    logits = torch.cat((1 - p, p), dim=1).log()
    target = torch.tensor([[[1, 1], [0, 0]]])
    torch.testing.assert_close(DiceLoss(smooth=1e-12)(logits, target).item(), 1 - 2.6 / 4)


def test_dice_of_a_label_that_is_nowhere():
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    certain = torch.tensor([50.0, -50.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert DiceLoss()(certain, target) == pytest.approx(0, abs=1e-6)
    assert DiceLoss()(-certain, target) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("class_weights", [None, (0.2, 1.0, 3.0)])
def test_cross_entropy_by_hand(class_weights):
    logits, target = sample()
    w = torch.tensor(class_weights or (1.0, 1.0, 1.0), dtype=torch.float64)[target]
    log_p = torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(CELoss(class_weights=class_weights)(logits, target), -(w * log_p).sum() / w.sum())


def test_class_weights_must_be_one_per_class():
    with pytest.raises(ValueError, match=r"2 numbers.*3 classes"):
        CELoss(class_weights=(1.0, 2.0))(*sample())


def test_dice_ce_is_monais():
    logits, target = sample()
    theirs = monai.losses.DiceCELoss(
        include_background=False, softmax=True, to_onehot_y=True, lambda_dice=0.7, lambda_ce=1.3, batch=True
    )
    torch.testing.assert_close(DiceCELoss(dice=0.7, ce=1.3)(logits, target), theirs(logits, target[:, None]))


@pytest.mark.parametrize("name", LOSSES.names())
def test_gradients_are_the_numerical_ones(name):
    logits, target = sample(size=(3, 4))
    assert torch.autograd.gradcheck(lambda x: LOSSES.get(name)()(x, target), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES.names())
def test_half_precision_loses_only_the_rounding_of_the_logits(name):
    """2·10^6 ones cannot even be counted in bf16; the sums must be in fp32."""
    logits, target = sample(2, (100, 100, 100))
    half = logits.bfloat16()
    loss = LOSSES.get(name)()
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(half, target)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), loss(half.double(), target), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES.names())
def test_memory_layout_changes_nothing(name):
    logits, target = sample()
    loss = LOSSES.get(name)()
    a, b = logits.clone().requires_grad_(), logits.to(memory_format=torch.channels_last_3d).requires_grad_()
    loss(a, target).backward()
    loss(b, target).backward()
    torch.testing.assert_close(a.grad, b.grad)


# nnU-Net: 1/2^i, the last one 0, divided by the sum.
@pytest.mark.parametrize(
    ("heads", "weights"),
    [(1, [1]), (2, [1, 0]), (3, [2 / 3, 1 / 3, 0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])],
)
def test_head_weights_are_nnunets(heads, weights):
    assert head_weights(heads) == pytest.approx(weights)


def test_deep_supervision_is_the_weighted_sum_over_its_outputs():
    logits, target = sample(3, (8, 8, 4))
    heads = [logits, sample(3, (4, 4, 2), 1)[0], torch.full((2, 3, 2, 2, 1), torch.nan)]
    small = F.interpolate(target[:, None].double(), size=(4, 4, 2), mode="nearest-exact")[:, 0].long()
    expected = (2 * F.cross_entropy(heads[0], target) + F.cross_entropy(heads[1], small)) / 3
    torch.testing.assert_close(DeepSupervision(CELoss())(heads, target), expected)
    torch.testing.assert_close(DeepSupervision(CELoss())(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("size", [(4, 6, 5), (2, 3, 5), (3, 7, 4)])
def test_nearest_is_torchs(size):
    target = sample(5, (8, 12, 5))[1]
    expected = F.interpolate(target[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
    assert torch.equal(nearest(target, torch.Size(size)), expected)


def test_the_studys_loss_takes_the_nets_outputs():
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
