"""Holes against SimpleITK, closings against scipy's with the ball spelt out, and by hand."""

import itertools
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from common.postprocess.shape import Closing, FillHoles

NAMES = ("liver", "tumour")


def blobs(shape: tuple[int, ...], seed: int, share: float = 0.4) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return (noise > np.quantile(noise, share)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(30, 34), (13, 14, 12)])
def test_holes_are_those_of_simpleitk(shape: tuple[int, ...], seed: int) -> None:
    label = blobs(shape, seed, 0.4 if len(shape) == 2 else 0.2)
    # SimpleITK's word is about the holes, not about what encloses them.
    wanted = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(label), fullyConnected=False))
    assert wanted.sum() > label.sum()
    np.testing.assert_array_equal(FillHoles()(label, (1.0,) * len(shape), ["a"]), wanted)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_holes_slice_by_slice(axis: Any) -> None:
    label = blobs((12, 13, 14), 0)
    slices = [
        sitk.GetArrayFromImage(
            sitk.BinaryFillhole(sitk.GetImageFromArray(np.ascontiguousarray(one)), fullyConnected=False)
        )
        for one in np.moveaxis(label, axis, 0)
    ]
    np.testing.assert_array_equal(FillHoles(axis=axis)(label, (1.0,) * 3, ["a"]), np.stack(slices, axis=axis))


def test_a_tunnel_is_a_hole_only_across_its_axis() -> None:
    label = np.ones((5, 5, 5), np.uint8)
    label[2, 2, :] = 0
    assert FillHoles()(label, (1.0,) * 3, ["a"]).sum() == 120
    assert FillHoles(axis=2)(label, (1.0,) * 3, ["a"]).sum() == 125
    assert FillHoles(axis=0)(label, (1.0,) * 3, ["a"]).sum() == 120


def test_a_tumour_within_the_liver_stays() -> None:
    label = np.zeros((7, 7), np.uint8)
    label[1:6, 1:6] = 1
    label[2:5, 2:5] = 0
    label[3, 3] = 2
    filled = FillHoles(labels=("liver",))(label, (1.0, 1.0), NAMES)
    assert (filled == 2).sum() == 1
    assert filled[3, 3] == 2
    assert (filled == 1).sum() == 24


def ball(radius: float, spacing: tuple[float, ...]) -> NDArray[np.bool_]:
    """The voxels within `radius` mm of the middle one."""
    sides = [int(radius / s + 1e-6) for s in spacing]
    inside = [
        sum((o * s) ** 2 for o, s in zip(offset, spacing, strict=True)) <= (radius + 1e-6) ** 2
        for offset in itertools.product(*(range(-n, n + 1) for n in sides))
    ]
    return np.array(inside).reshape([2 * n + 1 for n in sides])


@pytest.mark.parametrize(
    ("shape", "radius", "spacing"),
    [
        ((30, 26), 1.0, (1.0, 1.0)),
        ((30, 26), 2.9, (1.0, 1.0)),
        ((20, 26), 1.4, (0.7, 0.7)),  # exactly two voxels
        ((14, 15, 12), 2.0, (1.0, 1.0, 1.0)),
        ((14, 15, 12), 2.0, (0.8, 1.0, 2.5)),  # no neighbour along the last axis
    ],
)
def test_closing_is_that_with_a_ball_of_millimetres(
    shape: tuple[int, ...], radius: float, spacing: tuple[float, ...]
) -> None:
    label = blobs(shape, 1)
    room = 8
    closed = ndimage.binary_closing(np.pad(label, room), ball(radius, spacing))
    wanted = closed[(slice(room, -room),) * len(shape)]
    assert wanted.sum() > label.sum()
    np.testing.assert_array_equal(Closing(radius=radius)(label, spacing, ["a"]), wanted)


def test_a_gap_is_closed_that_no_ball_fits_into() -> None:
    label = np.zeros((20, 20), np.uint8)
    label[:, :8] = label[:, 11:] = 1  # three columns wide
    assert Closing(radius=1)(label, (1.0, 1.0), ["a"])[10].sum() == 17
    assert Closing(radius=2)(label, (1.0, 1.0), ["a"])[10].sum() == 20
    assert Closing(radius=1)(label, (0.5, 0.5), ["a"])[10].sum() == 20


def test_a_gain_takes_nothing_from_another_label() -> None:
    label = np.zeros((9, 9), np.uint8)
    label[:, :4] = label[:, 5:] = 1
    label[4, 4] = 2
    closed = Closing(radius=1, labels=("liver",))(label, (1.0, 1.0), NAMES)
    assert closed[4, 4] == 2
    assert (closed == 1).sum() >= 72 + 6
