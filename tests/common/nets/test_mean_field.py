"""Mean field against the sums of its definition, voxel by voxel."""

import itertools
import math

import numpy as np
import pytest
import torch

from common.nets.mean_field import mean_field

WEIGHTS = {"smoothness": 0.7, "appearance": 1.3, "sigma_smooth": 1.5, "sigma_space": 2.5, "sigma_image": 0.6}


def by_definition(unary, image, *, iterations, radius, smoothness, appearance, sigmas, cost, spacing):
    """The same with one loop over voxels and one over their neighbours, in numpy."""
    classes, *size = unary.shape
    smooth, space, alike = sigmas
    voxels = list(itertools.product(*map(range, size)))
    logits = unary.copy()
    for _ in range(iterations):
        q = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        new = unary.copy()
        for p in voxels:
            heard, totals = np.zeros((2, classes)), np.ones(2)
            for other in voxels:
                steps = [abs(a - b) for a, b in zip(p, other, strict=True)]
                if other == p or max(steps) > radius:
                    continue
                far = sum((n * s) ** 2 for n, s in zip(steps, spacing, strict=True))
                unlike = float(((image[:, *p] - image[:, *other]) ** 2).sum())
                weights = (
                    math.exp(-far / (2 * smooth**2)),
                    math.exp(-far / (2 * space**2) - unlike / (2 * alike**2)),
                )
                totals += weights
                heard += np.outer(weights, q[:, *other])
            heard /= totals[:, None]
            new[:, *p] -= cost @ (smoothness * heard[0] + appearance * heard[1])
        logits = new
    return logits


@pytest.mark.parametrize(
    ("size", "radius", "spacing"), [((5, 5), 4, (1.0, 1.0)), ((6, 5), 2, (0.5, 2.0)), ((3, 4, 3), 1, (1.0, 1.0, 3.0))]
)
@pytest.mark.parametrize("potts", [True, False])
def test_it_is_its_definition(size, radius, spacing, potts):
    rng = np.random.default_rng(3)
    unary, image = rng.normal(size=(2, 3, *size)), rng.normal(size=(2, 2, *size))
    cost = 1 - np.eye(3) if potts else rng.normal(size=(3, 3))
    per_class = np.array([0.5, 1.0, 1.5])
    expected = [
        by_definition(
            u, i, iterations=2, radius=radius, smoothness=per_class, appearance=1.3, sigmas=(1.5, 2.5, 0.6),
            cost=cost, spacing=spacing,
        )
        for u, i in zip(unary, image, strict=True)
    ]  # fmt: skip
    found = mean_field(
        torch.from_numpy(unary), torch.from_numpy(image), iterations=2, radius=radius,
        **{**WEIGHTS, "smoothness": torch.from_numpy(per_class)},
        compatibility=None if potts else torch.from_numpy(cost), spacing=spacing,
    )  # fmt: skip
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)))


def test_gradients_are_those_of_small_steps():
    torch.manual_seed(0)
    unary = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    image = torch.randn(1, 1, 3, 4, dtype=torch.float64)
    weights = [torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    cost = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)

    def field(unary, smoothness, appearance, cost):
        given = {**WEIGHTS, "smoothness": smoothness, "appearance": appearance}
        return mean_field(unary, image, iterations=2, radius=2, compatibility=cost, **given)

    assert torch.autograd.gradcheck(field, (unary, *weights, cost))


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
def test_with_and_without_gradients_it_is_the_same_and_radius_may_differ_per_axis(shape):
    torch.manual_seed(2)
    unary, image = torch.randn(1, 3, *shape, requires_grad=True), torch.randn(1, 1, *shape)
    radius = (1, 2, 1)[: len(shape)]
    with_gradients = mean_field(unary, image, iterations=2, radius=radius, **WEIGHTS)
    with torch.inference_mode():
        assert torch.equal(mean_field(unary, image, iterations=2, radius=radius, **WEIGHTS), with_gradients)


def test_a_wider_window_than_the_image_changes_nothing():
    torch.manual_seed(3)
    unary, image = torch.randn(1, 2, 4, 5), torch.randn(1, 1, 4, 5)
    whole, beyond = (mean_field(unary, image, iterations=3, radius=r, **WEIGHTS) for r in (4, 9))
    torch.testing.assert_close(whole, beyond)


def test_it_takes_a_lone_voxel_but_not_an_object_that_looks_different():
    image = torch.zeros(1, 1, 9, 9)
    image[..., 3:6, 3:6] = 5
    unary = torch.zeros(1, 2, 9, 9)
    unary[:, 0] = 1
    wrong, right = (0, 0), (slice(3, 6), slice(3, 6))
    for place in (wrong, right):
        unary[:, :, *place] = 0
        unary[:, 1, *place] = 1
    given = {**WEIGHTS, "smoothness": 0.0, "appearance": 4.0}
    labels = mean_field(unary, image, iterations=5, radius=3, **given).argmax(1)
    expected = torch.zeros(1, 9, 9, dtype=torch.int64)
    expected[:, *right] = 1
    assert torch.equal(labels, expected)


def test_half_precision_is_left_aside():
    torch.manual_seed(4)
    unary, image = torch.randn(1, 2, 8, 8).bfloat16(), torch.randn(1, 1, 8, 8).bfloat16()
    exact = mean_field(unary.float(), image.float(), iterations=3, radius=2, **WEIGHTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mean_field(unary, image, iterations=3, radius=2, compatibility=1 - torch.eye(2), **WEIGHTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)


def test_news_travel_one_radius_in_each_round():
    torch.manual_seed(5)
    unary, image = torch.randn(1, 2, 21, 21, dtype=torch.float64), torch.randn(1, 1, 21, 21, dtype=torch.float64)
    changed = unary.clone()
    changed[0, 1, 10, 10] += 3
    one, other = (mean_field(u, image, iterations=3, radius=2, **WEIGHTS) for u in (unary, changed))
    rows, columns = (one != other).any(dim=1)[0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 16, 4, 16)
