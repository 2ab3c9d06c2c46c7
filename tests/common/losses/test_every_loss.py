"""What holds for every loss of the registry, with its default options."""

import math

import pytest
import torch

from common.cards import card_of
from common.labels import IGNORE
from common.names import LOSSES
from common.nets.describe import activation_memory
from common.study import Study

every_loss = pytest.mark.parametrize("name", LOSSES.names())
# The entropy term looks at no label, so that what is said of labels does not hold for it.
every_labelled_loss = pytest.mark.parametrize("name", [name for name in LOSSES.names() if name != "entropy"])


def loss_and_gradient(name, logits, target):
    x = logits.detach().clone().requires_grad_()
    value = LOSSES.get(name)()(x, target)
    value.backward()
    return value.item(), x.grad


def certain(target, classes, how=40.0):
    """Logits that are sure of `target` (of the background where it is IGNORE)."""
    known = torch.where(target == IGNORE, 0, target)
    return how * torch.nn.functional.one_hot(known, classes).movedim(-1, 1).double()


def blob(size=(8, 9), label=1):
    target = torch.zeros(2, *size, dtype=torch.int64)
    target[0, 2:6, 3:7] = label
    target[1, 1:4, 2:8] = label
    return target


def some_ignored(target, seed=3):
    hidden = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    return torch.where(hidden, IGNORE, target)


@every_loss
def test_card_is_whole(name):
    card = card_of(LOSSES.get(name))
    assert all((card.title, card.suited))
    assert any(word in card.source for word in ("arXiv", "doi")), "the source needs a number that can be looked up"


@every_loss
@pytest.mark.parametrize("size", [(5, 6), (4, 4, 3)])
def test_gradients_are_the_numerical_ones(name, size, sample):
    logits, target = sample(size=size)
    loss = LOSSES.get(name)()
    assert torch.autograd.gradcheck(lambda x: loss(x, some_ignored(target)), logits.requires_grad_())


@every_labelled_loss
def test_voxels_without_a_label_do_not_count(name, sample):
    logits, target = sample(size=(8, 9))
    target = some_ignored(target)
    hidden = (target == IGNORE)[:, None].expand_as(logits)
    value, gradient = loss_and_gradient(name, logits, target)
    assert gradient[hidden].abs().max() == 0
    assert gradient[~hidden].abs().max() > 0
    other = torch.where(hidden, 9 * torch.randn_like(logits), logits)
    assert loss_and_gradient(name, other, target)[0] == pytest.approx(value, rel=1e-12)


@every_labelled_loss
def test_a_batch_without_any_label_costs_nothing(name, sample):
    logits, target = sample(size=(8, 9))
    value, gradient = loss_and_gradient(name, logits.float(), torch.full_like(target, IGNORE))
    # (1e-7)^(3/4): focal Tversky's least.
    assert value == pytest.approx(0, abs=1e-5)
    assert gradient.abs().max() == 0


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("there", [(0,), (1,), (2,), (0, 2), (IGNORE,), (1, IGNORE)], ids=str)
@pytest.mark.parametrize("how", [0.0, 1.0, 200.0])
def test_finite_whatever_is_absent(name, dtype, there, how):
    """Undecided, leaning and wholly sure logits, right or wrong; two labels have half of the image each."""
    target = torch.full((2, 6, 6), there[0])
    target[:, 3:] = there[-1]
    for sure_of in (0, 1, there[0]):
        logits = certain(torch.full_like(target, sure_of), 3, how).to(dtype)
        value, gradient = loss_and_gradient(name, logits, target)
        assert math.isfinite(value)
        assert gradient.isfinite().all()


@every_labelled_loss
def test_predicting_a_label_that_is_nowhere_costs(name):
    target = blob()
    logits = certain(target, 3)
    wrongly = logits.clone()
    wrongly[0, 2, 6:, 7:] += 42  # a corner of the background called label 2, which is nowhere
    right, _ = loss_and_gradient(name, logits, target)
    wrong, gradient = loss_and_gradient(name, wrongly, target)
    assert wrong > right + 0.01
    # A step against the gradient takes it away; of clDice only on the centre line.
    there = gradient[0, 2, 6:, 7:]
    assert (there > 0).all() if name != "cldice" else (there >= 0).all() and there.any()


@every_labelled_loss
@pytest.mark.parametrize("ignored", [False, True])
def test_the_truth_is_the_best_prediction(name, ignored, sample):
    target = blob()
    target = some_ignored(target) if ignored else target
    best, _ = loss_and_gradient(name, certain(target, 3), target)
    for seed in range(4):
        assert best < loss_and_gradient(name, sample(size=(8, 9), seed=seed)[0], target)[0]
    others = [torch.full_like(target, label) for label in range(3)] + [torch.roll(target, n, dims=1) for n in (1, -2)]
    for other in others:
        cost, _ = loss_and_gradient(name, certain(other, 3), target)
        # clDice takes masks for equal whose centre lines lie within each other, and one that fills the patch has none.
        assert best <= cost if name == "cldice" else best < cost


@every_loss
def test_steps_against_the_gradient_lower_it(name, sample):
    logits, target = sample(size=(8, 9))
    target = some_ignored(blob())
    before, gradient = loss_and_gradient(name, logits, target)
    # A step to first order lowers it by `step` times the gradient's square; half of that must be seen.
    step = 1e-3 / gradient.norm().item()
    after, _ = loss_and_gradient(name, logits - step * gradient, target)
    assert after < before - 0.5 * step * gradient.square().sum().item()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_loses_only_the_rounding_of_the_logits(name, dtype, sample):
    """2·10^5 ones can be counted neither in fp16 (at most 65504) nor in bf16; the sums must be in fp32."""
    logits, target = sample(2, (48, 48, 48))
    target = some_ignored(target)
    half = logits.to(dtype)
    loss = LOSSES.get(name)()
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(half, target)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), loss(half.double(), target), rtol=1e-5, atol=1e-5)


@every_loss
def test_double_precision_stays(name, sample):
    logits, target = sample(size=(8, 9))
    assert LOSSES.get(name)()(logits, target).dtype == torch.float64


@every_loss
def test_memory_layout_changes_nothing(name, sample):
    logits, target = sample()
    a, b = logits, logits.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(
        loss_and_gradient(name, a, some_ignored(target)), loss_and_gradient(name, b, some_ignored(target))
    )


@every_loss
@pytest.mark.parametrize("dimensions", [2, 3])
def test_its_memory_can_be_computed_without_arithmetic(name, dimensions):
    study = Study.model_validate(
        {
            "name": "s", "data": {"labels": ["a", "b"], "dimensions": dimensions}, "training": {"steps": 1},
            "plan": {"patch": [32] * dimensions}, "loss": name, "net": {"name": "dynunet", "size": "small"},
        }
    )  # fmt: skip
    # The net's first map alone is 16 channels wide.
    assert activation_memory(study) > 4 * 2 * 16 * 32**dimensions
