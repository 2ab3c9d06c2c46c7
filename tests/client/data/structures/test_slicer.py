"""3D Slicer's .seg.nrrd: files as Slicer writes them, against the arrays in them and SimpleITK's resampling."""

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from client.data.structures import Misfit, has_names, names_in, open_structures
from client.data.volume import Volume
from common.errors import DataError

TERMS = "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~"
TAGS = f"Segmentation.Status:inprogress|TerminologyEntry:{TERMS}SCT^10200004^Liver~^^~Anatomic codes~^^~^^|"
AFFINE = np.diag([1.5, 1.25, 3.0, 1.0])
AFFINE[:3, 3] = (-30, 20, 5)
IMAGE = Volume(np.zeros((1, 12, 10, 8), np.int16), AFFINE)


def header(array: np.ndarray, segments: dict[str, str], origin: tuple[int, ...] = (0, 0, 0)) -> dict[str, Any]:
    """Of a label map that begins at voxel `origin` of the image, in LPS as Slicer has it: its first axes run back."""
    directions = np.diag([-1.5, -1.25, 3.0])
    place = (AFFINE @ [*origin, 1.0])[:3] * [-1, -1, 1]
    lists = [np.full(3, np.nan)] if array.ndim == 4 else []
    kinds = ["list"] * len(lists) + ["domain"] * 3
    return {"space": "left-posterior-superior", "space directions": np.vstack([*lists, directions]),
            "space origin": place, "kinds": kinds, "encoding": "gzip", **segments}  # fmt: skip


def segment(index: int, name: str, value: int | None = None, layer: int | None = None, **more: str) -> dict[str, str]:
    fields = {"ID": f"Segment_{index + 1}", "Name": name, "Extent": "0 11 0 9 0 7", "Color": "0.5 0.2 0.1", **more}
    if value is not None:
        fields["LabelValue"] = str(value)
    if layer is not None:
        fields["Layer"] = str(layer)
    return {f"Segment{index}_{key}": text for key, text in fields.items()}


def test_one_layer_with_values_names_and_codes(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 8, (12, 10, 8)).astype(np.uint8)
    segments = {**segment(0, "Liver ", 2, 0, Tags=TAGS), **segment(1, "Tumour", 7, 0)}
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, segments))
    structures = open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE)
    assert [(s.number, s.name) for s in structures.segments] == [(2, "Liver"), (7, "Tumour")]
    liver = structures.segments[0]
    assert liver.code is not None
    assert liver.category is not None
    assert (liver.code.scheme, liver.code.value, liver.code.meaning) == ("SCT", "10200004", "Liver")
    assert liver.category.value == "123037004"
    assert structures.segments[1].code is None
    np.testing.assert_array_equal(structures.mask(2), array == 2)
    np.testing.assert_array_equal(structures.mask(7), array == 7)
    assert not structures.notes
    assert names_in(tmp_path / "a.seg.nrrd") == ["Liver (10200004 Liver)", "Tumour"]


def test_overlapping_segments_lie_in_layers(tmp_path: Path) -> None:
    array = np.random.default_rng(2).integers(0, 3, (2, 12, 10, 8)).astype(np.uint8)
    segments = {**segment(0, "a", 1, 0), **segment(1, "b", 1, 1), **segment(2, "c", 2, 1)}
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, segments))
    structures = open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE)
    assert [s.number for s in structures.segments] == [1, 2, 3]
    for number, expected in ((1, array[0] == 1), (2, array[1] == 1), (3, array[1] == 2)):
        np.testing.assert_array_equal(structures.mask(number), expected)


def test_the_first_form_has_a_layer_per_segment(tmp_path: Path) -> None:
    array = np.random.default_rng(3).integers(0, 2, (2, 12, 10, 8)).astype(np.uint8)
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, {**segment(0, "a"), **segment(1, "b")}))
    structures = open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE)
    for number in (1, 2):
        np.testing.assert_array_equal(structures.mask(number), array[number - 1] == 1)


def test_a_box_around_the_segments_is_put_in_its_place(tmp_path: Path) -> None:
    array = np.random.default_rng(4).integers(0, 2, (5, 4, 3)).astype(np.uint8)
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, segment(0, "a", 1, 0), (3, 2, 4)))
    structures = open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE)
    expected = np.zeros((12, 10, 8), bool)
    expected[3:8, 2:6, 4:7] = array == 1
    np.testing.assert_array_equal(structures.mask(1), expected)
    assert not structures.notes
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, segment(0, "a", 1, 0), (30, 2, 4)))
    with pytest.raises(Misfit, match="outside the image"):
        open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE).mask(1)


def test_another_grid_gives_the_nearest_voxels(tmp_path: Path) -> None:
    array = np.random.default_rng(5).integers(0, 2, (24, 18, 8)).astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing((0.8, 0.75, 3.0))
    image.SetOrigin((12.03, -33.13, 5.0))
    sitk.WriteImage(image, str(tmp_path / "plain.nrrd"))
    stored, fields = nrrd.read(str(tmp_path / "plain.nrrd"))
    nrrd.write(str(tmp_path / "a.seg.nrrd"), stored, {**fields, **segment(0, "a", 1, 0)})
    reference = sitk.Image(12, 10, 8, sitk.sitkUInt8)
    reference.SetSpacing((1.5, 1.25, 3.0))
    reference.SetOrigin((30, -20, 5))
    reference.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    moved = sitk.Resample(image, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    structures = open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE)
    assert structures.mask(1).any()
    np.testing.assert_array_equal(structures.mask(1), sitk.GetArrayFromImage(moved).T > 0)
    assert [note.code for note in structures.notes][:1] == ["label-resampled"]


def test_a_single_voxel_means_nothing(tmp_path: Path) -> None:
    array = np.ones((1, 1, 1), np.uint8)
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, segment(0, "a", 1, 0)))
    assert not open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE).mask(1).any()


@pytest.mark.parametrize(("value", "layer"), [(1, 1), (0, 0), (1, -1)])
def test_segments_that_are_nowhere_are_refused(tmp_path: Path, value: int, layer: int) -> None:
    array = np.ones((12, 10, 8), np.uint8)
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, header(array, segment(0, "a", value, layer)))
    with pytest.raises(DataError, match="in no layer"):
        open_structures(tmp_path / "a.seg.nrrd", tmp_path / "scan.nii.gz", IMAGE)


def test_which_files_have_names(tmp_path: Path) -> None:
    array = np.ones((12, 10, 8), np.uint8)
    nrrd.write(str(tmp_path / "plain.nrrd"), array, header(array, {}))
    nrrd.write(str(tmp_path / "slicer.nrrd"), array, header(array, segment(0, "a", 1, 0)))
    assert not has_names(tmp_path / "plain.nrrd")
    assert has_names(tmp_path / "slicer.nrrd")
    assert has_names(tmp_path / "label.dcm")
    assert has_names(tmp_path / "IM00001")
    for name in ("a.nii.gz", "a.png"):
        assert not has_names(tmp_path / name)
