"""Resampling against closed forms and SimpleITK; normalisation against MONAI and closed forms."""

import numpy as np
import pytest
import SimpleITK
from monai.transforms import NormalizeIntensity, ScaleIntensityRange
from numpy.typing import NDArray
from scipy import ndimage

from client.data.preprocess import Meta, grid, normalise, plan_grid, resample, resample_label, restore
from client.data.volume import Volume
from common.errors import DataError
from common.study_plan import Percentile, Plan, Window, ZScore

TILTED = np.array([[np.cos(0.3), -np.sin(0.3), 0, -20], [np.sin(0.3), np.cos(0.3), 0, 8], [0, 0, 1, 3], [0, 0, 0, 1]])


def volume(array: NDArray[np.generic], spacing: tuple[float, ...]) -> Volume:
    """`array` with one channel, on a grid tilted by 17 degrees (pictures: not tilted)."""
    size = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    return Volume(array[np.newaxis], (TILTED if array.ndim == 3 else np.eye(4)) @ size)


def plan(**keys: object) -> Plan:
    return Plan.model_validate({"patch": [16, 16, 16], **keys})


def millimetres(shape: list[int], affine: list[list[float]]) -> NDArray[np.float64]:
    """RAS coordinates (3, *shape) of all voxel centres."""
    index = np.stack([*np.indices(shape), np.ones(shape)])
    return np.tensordot(np.array(affine)[:3], index, axes=1)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.8, 0.7, 2.0), (2.5, 1.6, 1.25), (3, 4, 5)])
def test_a_ramp_in_mm_stays_the_same_ramp(spacing: tuple[float, ...]) -> None:
    """Linear interpolation and symmetric smoothing both keep a linear function exactly, away from the border."""
    slope = np.array([1.5, -0.7, 2.2])
    source = volume(np.zeros((30, 26, 34)), (0.9, 1.1, 1.3))
    own = grid((30, 26, 34), source.affine)
    ramp = np.tensordot(slope, millimetres(own["shape"], own["affine"]), axes=1).astype(np.float32)
    target = plan_grid(source, plan(spacing=spacing))
    assert target["spacing"] == pytest.approx(spacing)
    out = resample(ramp[np.newaxis], own, target)[0]
    expected = np.tensordot(slope, millimetres(target["shape"], target["affine"]), axes=1)
    edge = [int(np.ceil(8 / s)) for s in spacing]  # mm that smoothing with a repeated border can reach
    inner = tuple(slice(e, n - e) for e, n in zip(edge, out.shape, strict=True))
    assert out[inner].size > 0
    np.testing.assert_allclose(out[inner], expected[inner], atol=1e-3)


def test_finer_grid_equals_itk_everywhere_inside() -> None:
    values = np.random.default_rng(2).normal(size=(12, 10, 6)).astype(np.float32)
    source = volume(values, (1.2, 1.0, 2.5))
    own, target = grid(values.shape, source.affine), plan_grid(source, plan(spacing=[0.8, 0.9, 1.0]))
    assert target["shape"] == [18, 11, 15]  # 14.4/0.8, 10/0.9, 15/1, rounded
    ours = resample(values[np.newaxis], own, target)[0]

    def itk(array: NDArray[np.generic], g: dict[str, list]) -> SimpleITK.Image:  # type: ignore[type-arg]
        affine = np.diag([-1, -1, 1, 1]) @ np.array(g["affine"])
        image = SimpleITK.GetImageFromArray(array.T)
        image.SetOrigin(affine[:3, 3])
        image.SetSpacing(g["spacing"])
        image.SetDirection((affine[:3, :3] / g["spacing"]).ravel())
        return image

    reference = itk(np.zeros(target["shape"], np.float32), target)
    theirs = SimpleITK.Resample(itk(values, own), reference, SimpleITK.Transform(), SimpleITK.sitkLinear, np.nan)
    theirs = SimpleITK.GetArrayFromImage(theirs).T
    inside = np.isfinite(theirs)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=2e-5)


def test_same_spacing_changes_nothing() -> None:
    values = np.random.default_rng(1).normal(size=(1, 5, 6, 7)).astype(np.float32)
    source = volume(values[0], (0.7, 0.7, 1.25))
    own = grid((5, 6, 7), source.affine)
    for p in (plan(), plan(spacing=[0.7, 0.7, 1.25]), plan(spacing=[0.7000001, 0.7, 1.25])):
        target = plan_grid(source, p)
        assert target["affine"] == own["affine"]
        np.testing.assert_array_equal(resample(values, own, target), values)


@pytest.mark.parametrize("shape", [(40, 40, 40), (43, 43, 3), (40, 41, 2)])
def test_label_at_half_spacing_and_back(shape: tuple[int, ...]) -> None:
    away = [(i - (n - 1) / 2) / (0.4 * n + 0.5) for i, n in zip(np.indices(shape), shape, strict=True)]
    ball = (sum(a**2 for a in away) <= 1).astype(np.uint8) * 2
    source = volume(ball, (1, 1, 2))
    own, target = grid(shape, source.affine), plan_grid(source, plan(spacing=[0.5, 0.5, 1]))
    assert target["shape"] == [2 * n for n in shape]
    finer = resample_label(ball, own, target)
    assert set(np.unique(finer)) == {0, 2}
    back = resample_label(finer, target, own)
    assert 2 * ((back == 2) & (ball == 2)).sum() / ((back == 2).sum() + (ball == 2).sum()) > 0.95


def test_labels_take_the_largest_share_against_an_enumerated_case() -> None:
    label = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 3], [0, 0, 3, 3]], np.uint8)
    source = volume(label, (1, 1))
    own, target = grid((4, 4), source.affine), plan_grid(source, Plan(patch=(8, 8), size=(8, 8)))
    np.testing.assert_array_equal(resample_label(label, own, target), np.kron(label, np.ones((2, 2), np.uint8)))


def test_restore_brings_class_scores_back_to_the_cases_own_grid() -> None:
    truth = np.zeros((20, 24, 9), np.uint8)
    truth[4:14, 6:18, 2:7] = 1
    source = volume(truth, (0.9, 0.8, 3))
    own, target = grid(truth.shape, source.affine), plan_grid(source, plan(spacing=[1, 1, 1.5]))
    seen = resample_label(truth, own, target)
    scores = np.stack([seen == 0, seen == 1]).astype(np.float32)
    meta: Meta = {
        "image": "",
        "content": "",
        "own": own,
        "plan": target,
        "voxels": [0],
        "plan_voxels": [0],
        "unlabelled": [],
        "notes": [],
        "gate": {},
    }
    back = restore(scores, meta)
    assert back.shape == (2, 20, 24, 9)
    found = back.argmax(0)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95
    # The centre of mass is the same point in the patient: no half-voxel shift either way.
    np.testing.assert_allclose(ndimage.center_of_mass(found), ndimage.center_of_mass(truth), atol=0.15)


def test_pictures_are_stretched_over_their_whole_field() -> None:
    picture = np.tile(np.arange(64.0), (32, 1)).astype(np.float32)
    source = volume(picture, (1, 1))
    target = plan_grid(source, Plan(patch=(8, 8), size=(16, 16)))
    out = resample(picture[np.newaxis], grid((32, 64), source.affine), target)[0]
    assert target["spacing"] == [2, 4]
    # Pixel j of 16 lies over pixels 4j .. 4j+3 of 64, whose mean is 4j + 1.5.
    np.testing.assert_allclose(out[:, 2:-2], np.tile(4 * np.arange(2, 14) + 1.5, (16, 1)), atol=1e-3)


def test_fine_stripes_do_not_alias() -> None:
    """Stripes of one voxel on a grid four times coarser: the mean, where plain sampling gives stripes again."""
    stripes = np.indices((64, 64))[0] % 2
    source = volume(stripes, (1, 1))
    target = plan_grid(source, Plan(patch=(8, 8), size=(13, 13)))
    out = resample(stripes[np.newaxis].astype(np.float32), grid((64, 64), source.affine), target)[0]
    np.testing.assert_allclose(out[1:-1], 0.5, atol=0.02)


def test_a_spacing_in_the_wrong_unit_is_refused() -> None:
    with pytest.raises(DataError, match=r"would have .* voxels. Check the file's voxel size"):
        plan_grid(volume(np.zeros((64, 64, 64)), (1000, 1000, 1000)), plan(spacing=[1, 1, 1]))


IMAGE = np.random.default_rng(3).gamma(2, 300, size=(2, 9, 8, 7)).astype(np.float32)


@pytest.mark.parametrize("nonzero", [False, True])
def test_zscore_equals_monai(nonzero: bool) -> None:
    image = IMAGE.copy()
    image[:, :3] = 0
    theirs = NormalizeIntensity(nonzero=nonzero, channel_wise=True)(image)
    np.testing.assert_allclose(normalise(image, ZScore(nonzero=nonzero)), np.asarray(theirs), atol=1e-4)


def test_window_equals_monai() -> None:
    theirs = ScaleIntensityRange(a_min=100, a_max=900, b_min=-1, b_max=1, clip=True)(IMAGE)
    np.testing.assert_allclose(normalise(IMAGE, Window(low=100, high=900)), np.asarray(theirs), atol=1e-5)


def test_percentiles_of_known_numbers() -> None:
    image = np.arange(101, dtype=np.float32).reshape(1, 101, 1, 1)
    out = normalise(image, Percentile(low=10, high=90)).ravel()
    # The p-th percentile of 0 .. 100 is p.
    np.testing.assert_allclose(out, np.clip((np.arange(101) - 10) / 40 - 1, -1, 1), atol=1e-6)


def test_percentiles_of_a_nearly_empty_image_fall_back_to_its_range() -> None:
    image = np.zeros((1, 100, 100), np.float32)
    image[0, 3, 4] = 8
    out = normalise(image, Percentile())
    assert out[0, 3, 4] == 1
    assert out[0, 0, 0] == -1


def test_one_rule_per_channel() -> None:
    out = normalise(IMAGE, (Window(low=0, high=1000), ZScore()))
    np.testing.assert_array_equal(out[0], normalise(IMAGE[:1], Window(low=0, high=1000))[0])
    assert out[1].std() == pytest.approx(1, abs=1e-4)
    assert out.dtype == np.float32
