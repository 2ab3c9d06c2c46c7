"""Distances between surfaces against the package surface-distance, SimpleITK and closed forms, voxels never cubes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import surface_distance as reference
from numpy.typing import NDArray
from scipy import ndimage

from client.metrics import surface
from client.metrics.borders import assd_of, hd95_of, nsd_of
from client.metrics.pair import Pair, pairs

# The reference was written for an older scipy.
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance")

Mask = NDArray[np.bool_]


def pair_of(found: Mask, there: Mask, spacing: tuple[float, ...]) -> Pair:
    (pair,) = pairs(found.astype(np.uint8), there.astype(np.uint8), spacing, 1)
    return pair


def blobs(seed: int, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Two lumpy masks that overlap in part, some of it at the image's edge, with loose specks."""
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 2.5)
    other = base + 0.5 * ndimage.gaussian_filter(rng.normal(size=shape), 1.5) * base.std()
    first, second = (a > np.quantile(a, 0.8) for a in (base, other))
    second |= rng.random(shape) < 0.002
    return first, second


def cube(shape: tuple[int, ...], start: tuple[int, ...], size: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"), [((22, 27, 14), (0.7, 1.3, 3.1)), ((19, 19, 19), (1.0, 1.0, 1.0)), ((44, 37), (0.4, 2.2))]
)
def test_against_surface_distance(seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    found, there = blobs(seed, shape)
    pair = pair_of(found, there, spacing)
    theirs = reference.compute_surface_distances(there, found, spacing)
    # Its table of areas is in single precision.
    assert hd95_of(pair) == pytest.approx(reference.compute_robust_hausdorff(theirs, 95), rel=1e-6)
    for tolerance in (0.5, 1.0, 2.5):
        expected = reference.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert nsd_of(pair, tolerance) == pytest.approx(expected, rel=1e-5)
    areas = [theirs[f"surfel_areas_{side}"].sum() for side in ("gt", "pred")]
    means = reference.compute_average_surface_distance(theirs)
    assert assd_of(pair) == pytest.approx(np.average(means, weights=areas), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_within_a_voxel_of_what_simpleitk_measures_between_border_voxels(seed: int) -> None:
    spacing = (0.8, 1.5, 2.4)
    found, there = blobs(seed, (24, 22, 20))

    def image(mask: Mask) -> sitk.Image:
        made = sitk.GetImageFromArray(mask.astype(np.uint8))
        made.SetSpacing(spacing[::-1])
        return made

    sides = []
    for here, other in ((found, there), (there, found)):
        contour = sitk.GetArrayFromImage(sitk.LabelContour(image(here), fullyConnected=True)) > 0
        away = sitk.SignedMaurerDistanceMap(
            sitk.LabelContour(image(other), fullyConnected=True), squaredDistance=False, useImageSpacing=True
        )
        sides.append(np.abs(sitk.GetArrayFromImage(away))[contour])
    border_voxels = max(np.percentile(side, 95) for side in sides)
    assert abs(hd95_of(pair_of(found, there, spacing)) - border_voxels) <= math.hypot(*spacing)
    whole = [max(side.percentile(100) for side in pair_of(found, there, spacing).distances)]
    assert whole[0] == pytest.approx(max(side.max() for side in sides), abs=math.hypot(*spacing))


@pytest.mark.parametrize("axis", range(3))
def test_a_cube_beside_itself_is_as_far_off_as_it_was_moved(axis: int) -> None:
    """Of a moved cube one face, a sixth of the surface, is the whole way off: the 95th percentile lies in it."""
    spacing = (0.5, 1.25, 4.0)
    sizes = tuple(round(20 / s) for s in spacing)
    moved = [3, 3, 3]
    moved[axis] += 2
    shape = (60, 30, 16)
    pair = pair_of(cube(shape, tuple(moved), sizes), cube(shape, (3, 3, 3), sizes), spacing)
    assert hd95_of(pair) == pytest.approx(2 * spacing[axis])
    assert nsd_of(pair, 2 * spacing[axis]) == 1.0
    assert nsd_of(pair, 1.9 * spacing[axis]) < 1.0


@pytest.mark.parametrize("spacing", [0.6, 0.7, 0.8, 1.2])
def test_a_tolerance_of_one_voxel_forgives_one_voxel_of_a_spacing_that_a_file_rounds(spacing: float) -> None:
    stored = (float(np.float32(spacing)),) * 3
    pair = pair_of(cube((20, 20, 20), (6, 5, 5), (8, 8, 8)), cube((20, 20, 20), (5, 5, 5), (8, 8, 8)), stored)
    assert nsd_of(pair, spacing) == 1.0
    assert nsd_of(pair, 0.99 * spacing) < 1.0


def test_planes_are_as_far_apart_as_they_are() -> None:
    """Two sheets, each a voxel thick and a thousand wide: nearly all of either is exactly the gap away."""
    spacing = (0.25, 5.0)
    sheets = [cube((1000, 40), (0, at), (1000, 1)) for at in (4, 11)]
    pair = pair_of(sheets[0], sheets[1], spacing)
    # The upper side of the lower sheet is 6 voxels from the other one, its lower side 7.
    assert hd95_of(pair) == pytest.approx(7 * 5.0)
    assert assd_of(pair) == pytest.approx(6.5 * 5.0, rel=1e-3)
    assert nsd_of(pair, 6 * 5.0) == pytest.approx(0.5, rel=1e-2)
    assert nsd_of(pair, 29.9) == 0.0


def test_balls_within_each_other_are_their_radii_apart() -> None:
    spacing = np.array([0.6, 0.9, 1.5])
    x = np.indices((90, 60, 36)).transpose(1, 2, 3, 0) * spacing
    away = np.linalg.norm(x - np.array([27, 27, 27]), axis=-1)
    pair = pair_of(away < 14, away < 22, tuple(spacing))
    # Either surface runs at most half a voxel's diagonal beside the ball's.
    voxel = float(np.linalg.norm(spacing))
    assert hd95_of(pair) == pytest.approx(8, abs=voxel)
    # Below 8, because of the steps of the voxels the nearest counts, and those that stand out are nearest.
    assert 8 - voxel < assd_of(pair) < 8
    assert nsd_of(pair, 8 - voxel) == 0.0
    assert nsd_of(pair, 8 + voxel) == 1.0


def test_equal_masks_are_no_distance_apart() -> None:
    found, _ = blobs(1, (20, 20, 12))
    pair = pair_of(found, found, (1.0, 2.0, 3.0))
    assert (hd95_of(pair), assd_of(pair), nsd_of(pair, 0.1)) == (0.0, 0.0, 1.0)


def test_a_single_voxel_and_one_at_the_edge_have_a_surface() -> None:
    single, corner = cube((5, 5, 5), (2, 2, 2), (1, 1, 1)), cube((5, 5, 5), (0, 0, 0), (1, 1, 1))
    assert hd95_of(pair_of(single, corner, (1.0, 2.0, 2.0))) == pytest.approx(math.hypot(2, 4, 4))


@pytest.mark.parametrize(("spacing", "shape"), [((0.7, 1.3, 3.1), (20, 18, 15)), ((0.4, 2.2), (40, 30))])
def test_tree_and_map_find_the_same(
    spacing: tuple[float, ...], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, there = blobs(3, shape)
    measured = []
    for way in (0, 10**9):
        monkeypatch.setattr(surface, "_VOXELS_PER_PIECE", way)
        measured.append(surface.distances(found, there, spacing))
    for tree, by_map in zip(*measured, strict=True):
        np.testing.assert_allclose(tree.distance, by_map.distance, rtol=1e-12, atol=1e-12)
        assert tree.area.sum() == pytest.approx(by_map.area.sum())


@pytest.mark.parametrize(
    ("spacing", "table"),
    [
        ((0.7, 1.3, 3.1), reference.lookup_tables.create_table_neighbour_code_to_surface_area),
        ((0.7, 1.3), reference.lookup_tables.create_table_neighbour_code_to_contour_length),
    ],
)
def test_every_piece_has_the_area_of_the_published_table(
    spacing: tuple[float, ...], table: Callable[[tuple[float, ...]], NDArray[np.float64]]
) -> None:
    """Its bits stand the other way round: the last corner is the lowest."""
    bits = 2 ** len(spacing)
    theirs = table(spacing)
    mine = surface._areas(spacing)
    for code in range(1, 2**bits - 1):
        turned = sum(1 << (bits - 1 - b) for b in range(bits) if code >> b & 1)
        assert mine[code] == pytest.approx(theirs[turned], rel=1e-6), code
