"""Connected components against SimpleITK and by hand."""

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from common.postprocess.components import LargestComponent, RemoveSmall

ONE = (1.0, 1.0, 1.0)
NAMES = ("a", "b")


def speckled(shape: tuple[int, ...], seed: int, share: float = 0.25) -> NDArray[np.uint8]:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def by_size(mask: NDArray[np.uint8], full: bool) -> tuple[NDArray[Any], list[int]]:
    """SimpleITK's components, numbered from the largest, and their sizes."""
    relabel = sitk.RelabelComponentImageFilter()
    parts = relabel.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(mask), full))
    return sitk.GetArrayFromImage(parts), [int(n) for n in relabel.GetSizeOfObjectsInPixels()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("shape", "connectivity", "full"),
    [((14, 12, 13), 6, False), ((14, 12, 13), 26, True), ((30, 40), 4, False), ((30, 40), 8, True),
     ((30, 40), None, True), ((14, 12, 13), None, True)],
)  # fmt: skip
def test_largest_and_small_components_are_those_of_simpleitk(
    shape: tuple[int, ...], connectivity: Any, full: bool, seed: int
) -> None:
    mask = speckled(shape, seed, 0.3 if not full else 0.08 if len(shape) == 3 else 0.2)
    parts, sizes = by_size(mask, full)
    n = next(i for i in range(1, len(sizes)) if sizes[i - 1] > sizes[i])  # these are the largest without a tie
    spacing = ONE[: len(shape)]
    largest = LargestComponent(connectivity=connectivity, keep=n)(mask, spacing, ["a"])
    np.testing.assert_array_equal(largest, (parts >= 1) & (parts <= n))
    assert largest.dtype == np.uint8
    large = RemoveSmall(connectivity=connectivity, volume=3)(mask, spacing, ["a"])
    np.testing.assert_array_equal(large, (parts >= 1) & (parts <= sum(s >= 3 for s in sizes)))


@pytest.mark.parametrize(
    ("connectivity", "kept"), [(6, {"face"}), (18, {"face", "edge"}), (26, {"face", "edge", "corner"})]
)
def test_what_counts_as_a_neighbour(connectivity: Any, kept: set[str]) -> None:
    for touch, second in (("face", (3, 2, 2)), ("edge", (3, 3, 2)), ("corner", (3, 3, 3))):
        label = np.zeros((6, 6, 6), np.uint8)
        label[1:3, 1:3, 1:3] = 1  # its last voxel is (2, 2, 2)
        label[second] = 1
        out = LargestComponent(connectivity=connectivity)(label, ONE, ["a"])
        assert out.sum() == (9 if touch in kept else 8)


def test_of_equally_large_components_the_first_stays() -> None:
    label = np.array([[1, 0, 1, 0, 1]], np.uint8)
    assert LargestComponent()(label, ONE[:2], ["a"]).tolist() == [[1, 0, 0, 0, 0]]
    assert LargestComponent(keep=2)(label, ONE[:2], ["a"]).tolist() == [[1, 0, 1, 0, 0]]
    assert LargestComponent(keep=9)(label, ONE[:2], ["a"]).tolist() == label.tolist()


def test_a_volume_is_one_of_cubic_millimetres() -> None:
    label = np.zeros((4, 9, 4), np.uint8)
    label[1, 1:4, 1] = 1  # 3 voxels of 0.5 x 0.5 x 2 mm: 1.5 mm^3
    label[1, 6, 1] = 1  # 0.5 mm^3
    spacing = (0.5, 0.5, 2.0)
    assert RemoveSmall(volume=1.5)(label, spacing, ["a"]).sum() == 3
    assert RemoveSmall(volume=1.501)(label, spacing, ["a"]).sum() == 0
    assert RemoveSmall(volume=0.5)(label, spacing, ["a"]).sum() == 4
    # 0.1 * 0.1 * 0.1 is 0.0010000000000000002 in floating point, and 8 of them are not 0.008 either.
    eight = np.zeros((4, 4, 4), np.uint8)
    eight[:2, :2, :2] = 1
    assert RemoveSmall(volume=0.008)(eight, (0.1, 0.1, 0.1), ["a"]).sum() == 8


def test_labels_are_treated_one_by_one_and_only_those_named() -> None:
    label = np.array([[1, 1, 0, 1, 0, 2, 0, 2, 2]], np.uint8)
    assert LargestComponent()(label, ONE[:2], NAMES).tolist() == [[1, 1, 0, 0, 0, 0, 0, 2, 2]]
    assert LargestComponent(labels=("b",))(label, ONE[:2], NAMES).tolist() == [[1, 1, 0, 1, 0, 0, 0, 2, 2]]
    # Neighbours of different labels are not one component.
    touching = np.array([[1, 1, 2, 1, 0]], np.uint8)
    assert LargestComponent(labels=("a",))(touching, ONE[:2], NAMES).tolist() == [[1, 1, 2, 0, 0]]


def test_empty_and_full_label_maps_stay_and_the_input_is_not_changed() -> None:
    for label in (np.zeros((5, 4), np.uint8), np.ones((5, 4), np.uint8)):
        for step in (LargestComponent(), RemoveSmall(volume=3)):
            np.testing.assert_array_equal(step(label, ONE[:2], NAMES), label)
    label = np.array([[1, 1, 0, 1]], np.uint8)
    label.setflags(write=False)
    assert LargestComponent()(label, ONE[:2], NAMES).tolist() == [[1, 1, 0, 0]]
