"""The quality gate: one volume with one fault gives that finding and no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data import checks
from client.data.labels import label_map
from client.data.preprocess import Meta
from client.data.volume import Case, Volume
from client.site import SiteConfig
from common.errors import StudyError
from common.labels import IGNORE

CASE = Case("c1", "p1", (Path("scan.nii.gz"),), Path("mask.nii.gz"))
SCAN = Volume(np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5), np.diag([0.5, 0.5, 2.5, 1]))
MASK = Volume((np.arange(60).reshape(1, 3, 4, 5) % 3).astype(np.uint8), SCAN.affine)
TWO = label_map(["a", "b"], {})


def codes(scan: Volume = SCAN, mask: Volume = MASK, channels: int = 1, dimensions: int = 3) -> list[str]:
    findings = checks.check_case(CASE, [scan], mask, channels, dimensions, TWO)
    for finding in findings:
        assert finding.severity == "error"
        assert finding.case == "c1"
        assert finding.what.startswith(("scan.nii.gz: ", "mask.nii.gz: "))
        assert finding.remedy.endswith((".", "file."))
    return [finding.code for finding in findings]


def moved(volume: Volume, row: int, column: int, by: float) -> Volume:
    affine = volume.affine.copy()
    affine[row, column] += by
    return replace(volume, affine=affine)


def test_a_good_case_has_no_finding() -> None:
    assert codes() == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    # At most a tenth of the smallest voxel size, 0.05 mm: of an origin, of 4 steps along z, of 3 along y in x.
    [(moved(MASK, 0, 3, 0.051), ["label-grid"]), (moved(MASK, 0, 3, 0.049), []),
     (moved(MASK, 2, 2, 0.0126), ["label-grid"]), (moved(MASK, 2, 2, -0.0124), []),
     (moved(MASK, 0, 1, -0.0168), ["label-grid"]), (moved(MASK, 0, 1, -0.0165), []),
     (Volume(MASK.array[:, :, :, :4], MASK.affine), ["label-grid"]),
     (Volume(MASK.array.astype(np.float32) + 1e-4, MASK.affine), []),
     (Volume(MASK.array * 2, MASK.affine), ["label-value"]),
     (Volume(MASK.array - np.float32(0.5), MASK.affine), ["label-value"]),
     (Volume(np.where(MASK.array == 1, np.nan, MASK.array), MASK.affine), ["label-value"]),
     (Volume(np.concatenate([MASK.array, MASK.array]), MASK.affine), ["label-channels"])],
)  # fmt: skip
def test_label_faults(fault: Volume, expected: list[str]) -> None:
    assert codes(mask=fault) == expected


def test_a_grid_is_as_far_apart_as_its_farthest_corner() -> None:
    """A turn by `angle` about z through voxel 0: a chord of 2 r sin(angle / 2) at the corner of radius r."""
    angle, shape = 0.001, (1, 301, 401, 2)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan = Volume(np.zeros(shape, np.int16), np.diag([0.5, 0.5, 2.5, 1]))
    mask = Volume(np.zeros(shape, np.uint8), turn @ scan.affine)
    (finding,) = checks.check_grid(CASE, Path("mask.nii.gz"), mask, scan, "label-grid")
    # 300 and 400 steps of 0.5 mm are 250 mm along the diagonal.
    assert f"up to {2 * 250 * np.sin(angle / 2):.3g} mm apart (at most 0.05 mm)" in finding.what
    near = Volume(mask.array[:, :31, :41], mask.affine), Volume(scan.array[:, :31, :41], scan.affine)
    assert checks.check_grid(CASE, Path("mask.nii.gz"), *near, "label-grid") == []
    flat = Volume(mask.array[..., 0], mask.affine), Volume(scan.array[..., 0], scan.affine)
    assert [f.what for f in checks.check_grid(CASE, Path("mask.nii.gz"), *flat, "label-grid")] == [
        finding.what.replace(str(scan.array.shape[1:]), "")
    ]


def test_unknown_values_are_named() -> None:
    (finding,) = checks.check_label(CASE, Path("mask.nii.gz"), Volume(MASK.array * 7, MASK.affine), TWO)
    assert finding.what == "mask.nii.gz: unknown label value(s) 7, 14"


@pytest.mark.parametrize(
    ("array", "expected"),
    [(np.full(SCAN.array.shape, -1000), ["constant"]), (np.where(SCAN.array == 3, np.inf, SCAN.array), ["not-finite"]),
     (np.where(SCAN.array == 3, np.nan, SCAN.array), ["not-finite"]), (SCAN.array * 1e37, ["not-finite"]),
     (np.concatenate([SCAN.array, SCAN.array]), ["channels"])],
)  # fmt: skip
def test_image_faults(array: np.ndarray, expected: list[str]) -> None:  # type: ignore[type-arg]
    assert codes(scan=Volume(array, SCAN.affine)) == expected


def test_dimensions_and_channel_grids() -> None:
    assert codes(dimensions=2) == ["dimensions", "dimensions"]
    two = replace(CASE, images=(Path("a.nii"), Path("b.nii")))
    findings = checks.check_case(two, [SCAN, moved(SCAN, 1, 3, 1)], MASK, 2, 3, TWO)
    assert [(f.code, f.what[:5]) for f in findings] == [("image-grid", "b.nii")]


def test_oddities_of_usable_cases_are_warnings() -> None:
    own = {"shape": [3, 4, 5], "affine": np.eye(4).tolist(), "spacing": [1.0, 1.0, 1.0]}
    meta: Meta = {"image": "", "content": "", "own": own, "plan": own, "voxels": [4, 2], "plan_voxels": [4, 2]}  # type: ignore[typeddict-item]
    assert checks.warnings(CASE, meta, ["a", "b"]) == []
    (lost,) = checks.warnings(CASE, {**meta, "plan_voxels": [4, 0]}, ["a", "b"])
    assert (lost.code, lost.severity, "b is too small" in lost.what) == ("label-lost", "warning", True)
    (empty,) = checks.warnings(CASE, {**meta, "voxels": [0, 0], "plan_voxels": [0, 0]}, ["a", "b"])
    assert (empty.code, empty.severity) == ("label-empty", "warning")
    for spacing in ([0.001, 0.001, 0.001], [1.0, 1.0, 100.0]):
        (odd,) = checks.warnings(CASE, {**meta, "own": {**meta["own"], "spacing": spacing}}, ["a", "b"])
        assert (odd.code, odd.severity) == ("spacing", "warning")


def rules(**labels: object) -> dict[str, object]:
    return dict(SiteConfig.model_validate({"name": "s", "data": "x", "labels": labels}).labels)


def test_label_rules() -> None:
    stored = np.array([0, 1, 2, 3, 4, 200, 255])
    values = label_map(["a", "b"], rules(a=[3, 4], b=255))  # type: ignore[arg-type]
    np.testing.assert_array_equal(values.apply(stored), [0, 0, 0, 1, 1, 0, 2])
    assert values.unknown(stored) == [1, 2, 200]
    grey = label_map(["lung"], rules(lung={"from": 128}))  # type: ignore[arg-type]
    np.testing.assert_array_equal(grey.apply(stored), [0, 0, 0, 0, 0, 1, 1])
    assert grey.unknown(stored) == []
    default = label_map(["a", "b", "c"], {"c": 9})
    np.testing.assert_array_equal(default.apply(np.array([0, 1, 2, 9])), [0, 1, 2, 3])


def test_voxels_that_nobody_labelled() -> None:
    stored = np.array([0, 1, 2, 200, 255])
    values = label_map(["a", "b"], {}, ignore=255)
    np.testing.assert_array_equal(values.apply(stored), [0, 1, 2, 0, IGNORE])
    assert values.unknown(stored) == [200]
    below = label_map(["a"], {}, ignore=-1)
    np.testing.assert_array_equal(below.apply(np.array([-1.0, 0.0, 1.0])), [IGNORE, 0, 1])
    # Without the study's word it is an unknown value.
    assert TWO.unknown(stored) == [200, 255]
    for labels, ignore in (({}, 2), ({"a": {"from": 128}}, 255)):
        with pytest.raises(StudyError, match=rf"stored value {ignore} belongs to .* and to data.ignore"):
            label_map(["a", "b"], rules(**labels), ignore)  # type: ignore[arg-type]


def test_a_case_of_which_nothing_is_labelled() -> None:
    nothing = Volume(np.full(MASK.array.shape, 255, np.uint8), MASK.affine)
    labels = label_map(["a"], {}, ignore=255)
    (finding,) = checks.check_case(CASE, [SCAN], nothing, 1, 3, labels)
    assert (finding.code, finding.severity) == ("label-nothing", "error")
    nothing.array[0, 0, 0, 0] = 0
    assert checks.check_case(CASE, [SCAN], nothing, 1, 3, labels) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"anteror": 1}, "Did you mean 'anterior'"), ({"posterior": 1}, "1 belongs to anterior and to posterior"),
     ({"anterior": {"from": 1}, "posterior": 7}, "belongs to")],
)  # fmt: skip
def test_rules_that_contradict_the_study_or_themselves(labels: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        label_map(["anterior", "posterior"], rules(**labels))  # type: ignore[arg-type]
