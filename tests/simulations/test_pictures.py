"""Overlay pictures: orientation, slice, crop and contours, found again in the pixels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.labels import IGNORE
from simulations.pictures import COLOURS, best_slice, crop, overlay, radiological

ORANGE, BLUE = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in COLOURS[:2])


def near(path: Path, colour: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Pixels of the picture, above the legend, that have nearly `colour`."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)[:-24]
    found: NDArray[np.bool_] = np.abs(pixels - colour).max(axis=2) < 40
    return found


def test_axial_slices_have_anterior_up_and_the_patients_right_on_the_left() -> None:
    x, y = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")  # x grows to the right, y to the front
    shown_x, shown_y = radiological(x), radiological(y)
    assert shown_x.shape == (7, 5)
    assert (shown_y[0] == 6).all()
    assert (shown_x[:, 0] == 4).all()


def test_the_slice_with_most_truth_is_shown() -> None:
    truth, prediction = np.zeros((2, 4, 4, 6), np.uint8)
    assert best_slice(truth, prediction) == 3
    prediction[1, 1, 5] = 1
    assert best_slice(truth, prediction) == 5
    truth[1, 1, 1] = 1
    truth[:2, :2, 2] = 2
    assert best_slice(truth, prediction) == 2


def test_the_crop_holds_the_structure_and_is_square_in_millimetres() -> None:
    mask = np.zeros((100, 200), bool)
    mask[40:60, 100:120] = True
    rows, columns = crop(mask, (2.0, 1.0))
    assert mask[rows, columns].sum() == mask.sum()
    height, width = mask[rows, columns].shape
    assert height * 2.0 == pytest.approx(width * 1.0, abs=2)
    assert height == pytest.approx(40 * 1.9 / 2, abs=1)
    assert crop(np.zeros((5, 6), bool), (1, 1)) == (slice(None), slice(None))
    corner = np.zeros((50, 50), bool)
    corner[0, 49] = True
    rows, columns = crop(corner, (1, 1))
    assert (rows, columns) == (slice(0, 15), slice(35, 50))


def test_contours_lie_where_the_labels_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (60, 60, 5))
    truth = np.zeros(image.shape, np.uint8)
    truth[40:50, 40:50, 2] = 1  # right and anterior: upper left in the picture
    truth[10:20, 10:20, 2] = 2  # left and posterior: lower right
    path = tmp_path / "deep" / "a.png"
    overlay(image, truth, truth, (1.0, 1.0, 5.0), path, "case")
    orange, blue = (np.argwhere(near(path, c)).mean(axis=0) for c in (ORANGE, BLUE))
    assert orange[0] < blue[0]
    assert orange[1] < blue[1]
    with Image.open(path) as picture:
        assert picture.width == 400
    assert path.stat().st_size < 150_000


def test_the_prediction_is_dashed(tmp_path: Path) -> None:
    image = np.zeros((64, 64))
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 1
    for name, truth, prediction in (("solid", mask, mask * 0), ("dashed", mask * 0, mask)):
        overlay(image, truth, prediction, (1, 1), tmp_path / f"{name}.png", "")
    solid, dashed = (near(tmp_path / f"{name}.png", ORANGE).sum() for name in ("solid", "dashed"))
    # A dash of 3 and a gap of 1.5 line widths leave two thirds of the line.
    assert 0.5 < dashed / solid < 0.8


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 4)])
def test_voxels_without_a_label_are_not_drawn(tmp_path: Path, shape: tuple[int, ...]) -> None:
    truth = np.zeros(shape, np.uint8)
    truth[5:9, 5:9, ...] = 1
    sparse = truth.copy()
    sparse[12:] = IGNORE
    for name, mask in (("whole", truth), ("sparse", sparse)):
        overlay(truth * 1.0, mask, truth, (1.0,) * len(shape), tmp_path / f"{name}.png", "")
    assert (tmp_path / "sparse.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_spacing_sets_the_shape(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35] = 1
    overlay(mask * 1.0, mask, mask, (1.0, 0.5), tmp_path / "tall.png", "")
    found = np.argwhere(near(tmp_path / "tall.png", ORANGE))
    height, width = np.ptp(found, axis=0)
    assert height / width == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 4)])
def test_empty_labels_many_labels_and_hostile_names(tmp_path: Path, shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape, np.uint8)
    spacing = (1.0,) * len(shape)
    overlay(empty.astype(float), empty, empty, spacing, tmp_path / "empty.png", "$\\frac{$ <b>", ["$x$"])
    many = np.arange(empty.size, dtype=np.uint8).reshape(shape) % 12
    overlay(many.astype(float), many, many, spacing, tmp_path / "many.png", "x" * 200, ["$\\frac{$"])
    for name in ("empty", "many"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.verify()


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    a, b = np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match="must agree"):
        overlay(a, a, b, (1, 1), tmp_path / "a.png", "")
    with pytest.raises(ValueError, match="must agree"):
        overlay(a, a, a, (1, 1, 1), tmp_path / "a.png", "")
