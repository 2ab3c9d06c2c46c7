"""Coarse to fine: which boxes are looked at, when the search ends, and what it gives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.data.volume import CachedCase
from client.fixed_point import fixed_point
from client.inference import predict, probabilities, segment
from common.study import Study
from common.study_evaluation import FixedPoint

MakeCase = Callable[..., CachedCase]
MakeStudy = Callable[..., Study]
CPU = torch.device("cpu")
SPACING = (2.0, 1.0)
SHAPE = (30, 40)
# Channel 0 holds each pixel's row and channel 1 its column, so that a look can tell which box it was given.
PLACES = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(np.float32)


def mask(rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.bool_]:
    out = np.zeros(SHAPE, bool)
    out[slice(*rows), slice(*columns)] = True
    return out


class Script:
    """Finds what is written for its 1st, 2nd, ... look, within the box that it is given."""

    def __init__(self, *finds: NDArray[np.bool_]) -> None:
        self.finds = finds
        self.boxes: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def __call__(self, image: NDArray[np.float32]) -> Tensor:
        rows, columns = (slice(int(axis.min()), int(axis.max()) + 1) for axis in image)
        find = self.finds[min(len(self.boxes), len(self.finds) - 1)][rows, columns]
        self.boxes.append(((rows.start, rows.stop), (columns.start, columns.stop)))
        one = torch.from_numpy(np.where(find, 0.9, 0.2).astype(np.float32))
        return torch.stack([1 - one, one])


def found(values: Tensor) -> NDArray[np.bool_]:
    return values.argmax(0).numpy() > 0


WHOLE = ((0, 30), (0, 40))


def test_boxes_are_what_was_found_and_a_margin_in_mm() -> None:
    first, second, third = mask((10, 20), (12, 30)), mask((10, 14), (12, 18)), mask((10, 14), (12, 18))
    look = Script(first, second, third)
    values = fixed_point(look, PLACES, SPACING, FixedPoint(margin=5))
    # 5 mm are 3 rows of 2 mm (rounded up) and 5 columns of 1 mm. The 3rd look agrees with the 2nd: Dice 1.
    assert look.boxes == [WHOLE, ((7, 23), (7, 35)), ((7, 17), (7, 23))]
    np.testing.assert_array_equal(found(values), third)
    torch.testing.assert_close(values.sum(0), torch.ones(SHAPE))
    outside = ~mask((7, 17), (7, 23))
    assert (values[0].numpy()[outside] == 1).all()


def test_a_box_ends_at_the_image() -> None:
    look = Script(mask((0, 3), (35, 40)))
    fixed_point(look, PLACES, SPACING, FixedPoint(margin=4))
    assert look.boxes == [WHOLE, ((0, 5), (31, 40))]


def test_the_search_ends_when_two_looks_agree_well_enough() -> None:
    # 10 x 10, then 10 x 9: Dice 180 / 190 = 0.947; then 9 x 9: 162 / 171 = 0.947.
    finds = mask((10, 20), (10, 20)), mask((10, 20), (10, 19)), mask((10, 19), (10, 19))
    for agreement, looks in ((0.94, 2), (0.95, 4), (1.0, 4)):
        look = Script(*finds)
        values = fixed_point(look, PLACES, SPACING, FixedPoint(margin=2, agreement=agreement))
        assert len(look.boxes) == looks
        np.testing.assert_array_equal(found(values), finds[min(looks, 3) - 1])


def test_a_box_that_stays_the_same_is_not_looked_at_twice() -> None:
    # The box does not change though half of what was in it vanishes: the next look would see the very same.
    ring = mask((10, 20), (10, 20)) & ~mask((11, 19), (11, 19))
    look = Script(mask((10, 20), (10, 20)), ring)
    fixed_point(look, PLACES, SPACING, FixedPoint())
    assert len(look.boxes) == 2


def test_there_are_no_more_than_the_studys_rounds() -> None:
    finds = [mask((0, 30 - 2 * i), (0, 40 - 3 * i)) for i in range(10)]
    look = Script(*finds)
    values = fixed_point(look, PLACES, SPACING, FixedPoint(margin=0, rounds=4))
    assert len(look.boxes) == 1 + 4
    np.testing.assert_array_equal(found(values), finds[4])


def test_nothing_found_at_once_or_in_a_box() -> None:
    nothing, first = mask((0, 0), (0, 0)), mask((10, 20), (10, 20))
    look = Script(nothing)
    assert not found(fixed_point(look, PLACES, SPACING, FixedPoint())).any()
    assert look.boxes == [WHOLE]
    look = Script(first, nothing)
    np.testing.assert_array_equal(found(fixed_point(look, PLACES, SPACING, FixedPoint(margin=1))), first)
    assert len(look.boxes) == 2


class Threshold:
    """Finds what is above zero; remembers the sizes of what it saw."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, image: NDArray[np.float32]) -> Tensor:
        self.shapes.append(image.shape[1:])
        one = torch.sigmoid(torch.from_numpy(image[0]))
        return torch.stack([1 - one, one])


def test_a_coarse_first_look_finds_the_place() -> None:
    # A ramp stays a ramp on any grid, so its zero lies where it was: between columns 23 and 24.
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32) - 23.5, (1, 30, 40)).copy()
    look = Threshold()
    values = fixed_point(look, ramp, (1.0, 1.0), FixedPoint(coarse=2.5, margin=4, rounds=1))
    assert look.shapes == [(12, 16), (30, 20)]  # 30 and 40 voxels divided by 2.5; then columns 20 to 39
    np.testing.assert_array_equal(found(values)[0], np.arange(40) >= 24)


def test_a_coarse_look_that_finds_nothing_is_followed_by_a_fine_one() -> None:
    image = np.full((1, 30, 40), -1, np.float32)
    image[0, 10, 10] = 1.5  # averaged away
    look = Threshold()
    values = fixed_point(look, image, (1.0, 1.0), FixedPoint(coarse=4, margin=3))
    assert look.shapes == [(8, 10), (30, 40), (7, 7)]
    assert np.argwhere(found(values)).tolist() == [[10, 10]]


@pytest.mark.parametrize("coarse", [1.0, 2.0])
def test_with_a_net_that_sees_single_voxels_both_schemes_agree(
    make_case: MakeCase, make_study: MakeStudy, coarse: float
) -> None:
    net = nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1, 1))
        net.bias.zero_()  # type: ignore[union-attr]
    image = np.full((1, 30, 20, 24), -1.0)
    image[0, 5:17, 8:16, 3:20] = np.random.default_rng(0).uniform(0.5, 1.5, (12, 8, 17))
    case = make_case("a", image, image[0] > 0)
    sliding = make_study((16, 16, 16))
    scheme = {"method": "fixed_point", "margin": 4, "coarse": coarse}
    fixed = make_study((16, 16, 16), evaluation={"scheme": scheme})
    np.testing.assert_array_equal(segment([net], case, sliding, CPU), image[0] > 0)
    np.testing.assert_array_equal(segment([net], case, fixed, CPU), image[0] > 0)


def test_the_consensus_of_several_nets_is_what_looks(make_study: MakeStudy) -> None:
    study = make_study((16, 16), evaluation={"scheme": {"method": "fixed_point", "margin": 2}})
    torch.manual_seed(0)
    nets = [nn.Conv2d(1, 2, 1) for _ in range(3)]
    image = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    mean = torch.stack([probabilities(net, image, study, CPU) for net in nets]).mean(0)
    values = predict(nets, image, (1.0, 1.0), study, CPU)
    inside = values[0] < 1
    assert inside.any()
    torch.testing.assert_close(values[:, inside], mean[:, inside], atol=1e-6, rtol=1e-5)
