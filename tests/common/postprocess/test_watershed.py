"""Touching objects: discs whose necks are known, and SimpleITK's watershed of the same distance map."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from common.postprocess.watershed import Watershed, instances

FULL = {n: np.ones((3,) * n, bool) for n in (2, 3)}


def balls(
    shape: tuple[int, ...], centres: list[tuple[float, ...]], radius: float, spacing: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Balls in mm whose centres are given in mm."""
    at = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"))
    far = [np.sqrt(sum((a - c) ** 2 for a, c in zip(at, centre, strict=True))) for centre in centres]
    inside: NDArray[np.bool_] = np.min(far, axis=0) <= radius
    return inside


@pytest.mark.parametrize(
    ("shape", "spacing"), [((60, 80), (1.0, 1.0)), ((30, 80), (2.0, 1.0)), ((30, 46, 50), (1.0, 1.0, 1.5))]
)
@pytest.mark.parametrize(("depth", "objects"), [(2.5, 2), (6.0, 1)])
def test_two_balls_are_parted_at_their_neck(
    shape: tuple[int, ...], spacing: tuple[float, ...], depth: float, objects: int
) -> None:
    # Radius 12 and centres 18 apart: the neck has a radius of sqrt(144 - 81) = 7.9, so it is 4.1 narrower.
    middle = [(n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True)]  # between two voxels along each axis
    centres = [(*middle[:-1], middle[-1] + side) for side in (-9.0, 9.0)]
    mask = balls(shape, centres, 12.0, spacing)
    found = instances(mask, spacing, depth)
    assert found.max() == objects
    lost = mask & (found == 0)
    # One voxel wide: about the neck's cross-section, and nothing elsewhere.
    place = np.argwhere(lost)[:, -1] * spacing[-1]
    assert lost.sum() == 0 if objects == 1 else np.all(np.abs(place - middle[-1]) <= 2 * spacing[-1])
    if objects == 2:
        neck = lost.sum() * np.prod(spacing) / spacing[-1]
        cross = 2 * 7.94 if len(shape) == 2 else np.pi * 63
        assert neck == pytest.approx(cross, rel=0.25)
        for centre, value in zip(centres, (1, 2), strict=True):
            assert found[tuple(round(c / s) for c, s in zip(centre, spacing, strict=True))] == value


def test_objects_are_the_components_of_the_label_map() -> None:
    rng = np.random.default_rng(3)
    spacing = (1.0, 1.0)
    mask = balls((120, 120), [tuple(rng.uniform(8, 112, 2)) for _ in range(40)], 8.0, spacing)
    label = Watershed(depth=1.0)(mask.astype(np.uint8), spacing, ["nucleus"])
    parts, n = ndimage.label(label, FULL[2])
    found = instances(mask, spacing, 1.0)
    assert n == found.max() > ndimage.label(mask, FULL[2])[1]
    np.testing.assert_array_equal(label > 0, found > 0)
    # The same objects, whatever their numbers.
    pairs = set(zip(parts[label > 0].tolist(), found[label > 0].tolist(), strict=True))
    assert len(pairs) == n


@pytest.mark.parametrize(("depth", "spacing"), [(1.0, (1.0, 1.0)), (1.7, (1.0, 1.0)), (1.0, (0.6, 1.0))])
def test_as_many_objects_as_in_simpleitk(depth: float, spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(5)
    size = (120, 120)
    centres = [tuple(rng.uniform(0.1, 0.9) * n * s for n, s in zip(size, spacing, strict=True)) for _ in range(30)]
    mask = balls(size, centres, 8.0, spacing)
    distance = ndimage.distance_transform_edt(mask, spacing)
    lines = sitk.MorphologicalWatershed(
        sitk.GetImageFromArray(-distance), level=depth, markWatershedLine=True, fullyConnected=True
    )
    basins = sitk.GetArrayFromImage(lines)
    found = instances(mask, spacing, depth)
    middles = [
        np.argwhere((found == i) & (distance == distance[found == i].max()))[0] for i in range(1, found.max() + 1)
    ]
    assert len(middles) > ndimage.label(mask, FULL[2])[1]
    # Each object lies in a basin of its own; the few pixels that are as near to either neck are dealt out otherwise.
    own = np.array([0, *(basins[tuple(middle)] for middle in middles)])
    assert len(set(own.tolist())) == len(own)
    assert set(np.unique(basins[mask])) - {0} == set(own[1:].tolist())
    within = mask & (found > 0) & (basins > 0)
    assert within.sum() > 0.95 * mask.sum()
    assert (own[found[within]] != basins[within]).mean() < 0.01


def test_small_lonely_and_endless_objects_stay_whole() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1, 1] = mask[5:7, 2:9] = mask[10, 10] = True
    assert instances(mask, (1.0, 1.0), 3.0).max() == 3
    np.testing.assert_array_equal(instances(mask, (1.0, 1.0), 3.0) > 0, mask)
    assert (instances(np.ones((6, 6), bool), (1.0, 1.0), 1.0) == 1).all()
    assert instances(np.zeros((6, 6), bool), (1.0, 1.0), 1.0).max() == 0


def test_touching_objects_of_different_labels_are_left_alone() -> None:
    label = np.zeros((30, 30), np.uint8)
    label[5:25, 5:15] = 1
    label[5:25, 15:25] = 2
    np.testing.assert_array_equal(Watershed(depth=1.0)(label, (1.0, 1.0), ["a", "b"]), label)
