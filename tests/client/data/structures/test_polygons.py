"""Filled polygons against closed forms, matplotlib, OpenCV (rt-utils' own way) and SimpleITK."""

import itertools

import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import Delaunay

from client.data.structures.polygons import fill

SHAPE = (60, 70)
CENTRES = np.stack(np.meshgrid(np.arange(60), np.arange(70), indexing="ij"), axis=-1).astype(float)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], points: int = 720) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.array(centre) + np.array(radii) * np.column_stack([np.cos(angle), np.sin(angle)])


def within(centre: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((((CENTRES - centre) / radii) ** 2).sum(axis=-1) < 1)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("radii", [(20.3, 20.3), (25.1, 8.7), (3.4, 3.4), (1.2, 30.4)])
def test_circles_and_ellipses_of_closed_form(radii: tuple[float, float]) -> None:
    for shift in (0.0, 0.21, 0.47):
        centre = (29.4 + shift, 34.2 - shift)
        mask = fill([ellipse(centre, radii)], SHAPE)
        assert dice(mask, within(centre, radii)) >= 0.99
        if min(radii) > 5:
            assert mask.sum() == pytest.approx(np.pi * radii[0] * radii[1], rel=0.01)


def test_a_ring_as_two_contours_and_as_a_keyhole() -> None:
    centre = (30.3, 33.7)
    outer, inner = ellipse(centre, (22.2, 25.6)), ellipse(centre, (11.1, 9.3))
    ring = within(centre, (22.2, 25.6)) & ~within(centre, (11.1, 9.3))
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    assert dice(fill([outer, inner], SHAPE), ring) >= 0.99
    np.testing.assert_array_equal(fill([keyhole], SHAPE), fill([outer, inner], SHAPE))
    island = ellipse(centre, (4.4, 3.3))
    assert dice(fill([outer, inner, island], SHAPE), ring | within(centre, (4.4, 3.3))) >= 0.99


def test_any_polygon_is_as_matplotlib_has_it() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 40)))
        radius = rng.uniform(2, 45, len(angle))
        polygon = np.column_stack([30 + radius * np.cos(angle), 35 + radius * np.sin(angle)])
        expected = Outline(polygon).contains_points(CENTRES.reshape(-1, 2)).reshape(SHAPE)
        np.testing.assert_array_equal(fill([polygon], SHAPE), expected)


def test_polygons_that_share_edges_share_no_pixel_and_leave_none_out() -> None:
    """A triangulation of a square whose corners lie on halves of pixels: many edges go through pixels' centres."""
    rng = np.random.default_rng(4)
    inner = np.column_stack([rng.integers(11, 59, 60) + 0.5, rng.integers(21, 119, 60) / 2])
    corners = np.array([[10.5, 10.5], [10.5, 59.5], [59.5, 10.5], [59.5, 59.5]])
    points = np.unique(np.concatenate([corners, inner]), axis=0)
    covered = np.sum([fill([points[t]], (70, 70)).astype(int) for t in Delaunay(points).simplices], axis=0)
    expected = np.zeros((70, 70), int)
    expected[11:60, 11:60] = 1
    np.testing.assert_array_equal(covered, expected)


def test_outlines_traced_by_opencv_give_their_mask_again() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        mask = gaussian_filter(rng.normal(size=SHAPE), 3) > 0.05
        mask[20, 10:30] = True  # a line of one pixel
        found, _ = cv2.findContours(mask.T.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        # OpenCV says (column, row) of the transposed mask, which is (row, column) of the mask.
        polygons = [contour[:, 0].astype(float) + rng.uniform(-0.004, 0.004) for contour in found]
        np.testing.assert_array_equal(fill(polygons, SHAPE), mask)


def test_the_fill_of_simpleitk_on_a_grid_ten_times_as_fine() -> None:
    """Outline drawn as a chain of fine pixels and filled by ITK; every tenth pixel is a centre of ours."""
    fine = 10
    for polygon in (ellipse((28.6, 33.3), (17.7, 24.4)), np.array([[8.31, 9.27], [52.4, 20.6], [30.2, 60.9]])):
        close = np.concatenate([polygon, polygon[:1]])
        steps = np.concatenate([np.linspace(a, b, 2000) for a, b in itertools.pairwise(close)])
        pixels = np.rint(steps * fine).astype(int)
        drawn = np.zeros((SHAPE[0] * fine, SHAPE[1] * fine), np.uint8)
        drawn[pixels[:, 0], pixels[:, 1]] = 1
        filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(drawn), fullyConnected=False))
        assert dice(fill([polygon], SHAPE), filled[::fine, ::fine] > 0) >= 0.99


def test_what_lies_outside_is_cut_off() -> None:
    polygon = ellipse((0.3, 69.2), (20.2, 15.4))
    np.testing.assert_array_equal(fill([polygon], SHAPE), within((0.3, 69.2), (20.2, 15.4)))
    assert not fill([polygon + 500], SHAPE).any()
    assert not fill([polygon - 500], SHAPE).any()
    np.testing.assert_array_equal(fill([ellipse((30, 30), (500.3, 500.3))], SHAPE), np.ones(SHAPE, bool))


def test_nothing_is_within_a_line() -> None:
    assert not fill([np.array([[3.3, 4.4], [40.2, 50.6], [3.3, 4.4]])], SHAPE).any()
