"""The quality gate: one volume with one fault gives that finding and no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data.gate.cases import check_images, check_kept, check_mask
from client.data.gate.grids import check_grid
from client.data.gate.label import check_label
from client.data.gate.summary import summarise
from client.data.labels import LabelMap, label_map
from client.data.preprocess import Meta, grid
from client.data.volume import Case, Finding, Volume
from common.study import Study

CASE = Case("c1", "p1", (Path("scan.nii.gz"),), Path("mask.nii.gz"))
SCAN = Volume(np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5), np.diag([0.5, 0.5, 2.5, 1]))
MASK = Volume((np.arange(60).reshape(1, 3, 4, 5) % 3).astype(np.uint8), SCAN.affine)
TWO = label_map(["a", "b"], {})


def check_case(case: Case, images: list[Volume], label: Volume, channels: int, dimensions: int,
               labels: LabelMap) -> list[Finding]:  # fmt: skip
    """Images and mask, as a case is made."""
    found = check_images(case, images, channels, dimensions)
    return found + check_mask(case, case.label or Path(), label, images[0], dimensions, labels)


def codes(scan: Volume = SCAN, mask: Volume = MASK, channels: int = 1, dimensions: int = 3) -> list[str]:
    findings = check_case(CASE, [scan], mask, channels, dimensions, TWO)
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
    (finding,) = check_grid(CASE, Path("mask.nii.gz"), mask, scan, "label-grid")
    # 300 and 400 steps of 0.5 mm are 250 mm along the diagonal.
    assert f"up to {2 * 250 * np.sin(angle / 2):.3g} mm apart (at most 0.05 mm)" in finding.what
    near = Volume(mask.array[:, :31, :41], mask.affine), Volume(scan.array[:, :31, :41], scan.affine)
    assert check_grid(CASE, Path("mask.nii.gz"), *near, "label-grid") == []
    flat = Volume(mask.array[..., 0], mask.affine), Volume(scan.array[..., 0], scan.affine)
    assert [f.what for f in check_grid(CASE, Path("mask.nii.gz"), *flat, "label-grid")] == [
        finding.what.replace(str(scan.array.shape[1:]), "")
    ]


def test_unknown_values_are_named() -> None:
    (finding,) = check_label(CASE, Path("mask.nii.gz"), Volume(MASK.array * 7, MASK.affine), TWO)
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
    findings = check_case(two, [SCAN, moved(SCAN, 1, 3, 1)], MASK, 2, 3, TWO)
    assert [(f.code, f.what[:5]) for f in findings] == [("image-grid", "b.nii")]


STUDY = Study.model_validate({
    "name": "gate", "data": {"labels": ["a", "b"]}, "plan": {"patch": [8, 8, 8]}, "training": {"steps": 1}
})  # fmt: skip


def kept(spacing: tuple[float, ...] = (1.0, 1.0, 1.0), plan_voxels: tuple[int, ...] = (4, 2)) -> Meta:
    """A case of which nothing is odd but what is given."""
    image, truth = np.random.default_rng(1).normal(size=(1, 8, 8, 8)), np.zeros((8, 8, 8), np.uint8)
    truth[2:4, 2:4, 2], truth[5, 5, 4:6] = 1, 2
    own = grid(truth.shape, np.diag([*spacing, 1.0]))
    gate = summarise(image.astype(np.float32), truth, spacing, 2)
    return {"image": "", "content": "", "own": own, "plan": own, "voxels": [4, 2], "plan_voxels": [*plan_voxels],
            "unlabelled": [], "notes": [], "gate": gate}  # fmt: skip


def test_oddities_of_usable_cases_are_warnings() -> None:
    assert check_kept(CASE, kept(), STUDY) == []
    (lost,) = check_kept(CASE, kept(plan_voxels=(4, 0)), STUDY)
    assert (lost.code, lost.severity, "b is too small" in lost.what) == ("label-lost", "warning", True)
    (empty,) = check_kept(CASE, {**kept(plan_voxels=(0, 0)), "voxels": [0, 0]}, STUDY)
    assert (empty.code, empty.severity) == ("label-empty", "warning")
    for spacing in ((0.001, 0.001, 0.001), (8.0, 8.0, 100.0)):
        (odd,) = check_kept(CASE, kept(spacing), STUDY)
        assert (odd.code, odd.severity) == ("spacing", "warning")


def test_a_scan_far_from_the_plan_is_told() -> None:
    plan = STUDY.plan.model_copy(update={"spacing": (1.0, 1.0, 1.0)})
    (thick,) = check_kept(CASE, kept((1.0, 1.0, 4.0)), STUDY.model_copy(update={"plan": plan}))
    assert (thick.code, thick.what) == ("thick-slices", "scan.nii.gz: voxel size 1, 1, 4 mm, the plan's is 1, 1, 1 mm")
    assert check_kept(CASE, kept((1.0, 1.0, 3.9)), STUDY.model_copy(update={"plan": plan})) == []
    (long,) = check_kept(CASE, kept((0.5, 0.5, 8.0)), STUDY)
    assert (long.code, "16 times as long" in long.what) == ("anisotropic", True)
    large = STUDY.plan.model_copy(update={"patch": (16, 16, 17)})
    (small,) = check_kept(CASE, kept(), STUDY.model_copy(update={"plan": large}))
    assert (small.code, small.severity) == ("small-field", "info")


def test_a_case_of_which_nothing_is_labelled() -> None:
    nothing = Volume(np.full(MASK.array.shape, 255, np.uint8), MASK.affine)
    labels = label_map(["a"], {}, ignore=255)
    (finding,) = check_case(CASE, [SCAN], nothing, 1, 3, labels)
    assert (finding.code, finding.severity) == ("label-nothing", "error")
    nothing.array[0, 0, 0, 0] = 0
    assert check_case(CASE, [SCAN], nothing, 1, 3, labels) == []
