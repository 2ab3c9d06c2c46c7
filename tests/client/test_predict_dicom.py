"""Prediction on DICOM: the masks of the evaluation, and SEG objects that others open at the right place."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image

from client.data.dicom.scan import scan
from client.data.volume import Stack
from client.prediction.desk import predict
from client.prediction.inputs import inputs_of
from client.site import SiteConfig, site_of_home
from common.study import Study
from simulations.phantom import make_phantom
from tests.client.predicting import judged, model, study_of

LIVER, KIDNEY = "10200004 |Liver|", "64033007 |Kidney|"
ORGANS: dict[str, Any] = {
    "data": {"labels": ["liver", "kidneys"], "codes": {"liver": LIVER, "kidneys": KIDNEY}},
    "plan": {"spacing": [4, 4, 4], "patch": [16, 16, 16]}, "postprocess": ["largest_component"],
    "evaluation": {"mirror": False},
}  # fmt: skip


def segments(seg: Path, folder: Path) -> list[SimpleITK.Image]:
    """The segments of a SEG as dcmqi makes images of them."""
    tool = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or "segimage2itkimage"
    folder.mkdir()
    command = [tool, "--inputDICOM", str(seg), "--outputDirectory", str(folder), "-t", "nii"]
    subprocess.run(command, check=True, capture_output=True)
    return [SimpleITK.ReadImage(str(path)) for path in sorted(folder.glob("*.nii.gz"))]


def lies_at(segment: SimpleITK.Image, mask: SimpleITK.Image, value: int) -> bool:
    """Whether the voxels of `segment` are those of `mask` that have the value, by where they are in the patient."""
    found = {tuple(int(i) for i in reversed(index)) for index in np.argwhere(SimpleITK.GetArrayFromImage(segment))}
    wanted = set()
    for index in np.argwhere(SimpleITK.GetArrayFromImage(mask) == value):
        point = mask.TransformIndexToPhysicalPoint([int(i) for i in reversed(index)])
        near = segment.TransformPhysicalPointToIndex(point)
        assert np.allclose(segment.TransformIndexToPhysicalPoint(near), point, atol=0.02)
        wanted.add(tuple(near))
    return bool(wanted) and found == wanted


@pytest.mark.parametrize("hospital", [0, 1])
def test_dicom_masks_are_those_of_the_evaluation(tmp_path: Path, hospital: int) -> None:
    """Hospitals that store in different ways; the NIfTI mask by nibabel, the SEG by dcmqi and SimpleITK."""
    study = study_of(**ORGANS)
    folder = make_phantom(tmp_path / "data", sites=2, cases=1, format="dicom")[hospital]
    net = model(tmp_path / "model", study)
    expected = judged(study, site_of_home(folder), tmp_path, net)
    assert predict(str(tmp_path / "model"), [folder], tmp_path / "out", "cpu", folder, as_json=False)
    assert expected
    for case, mask in expected.items():
        assert set(np.unique(mask)) == {0, 1, 2}
        path = tmp_path / "out" / f"{case}.nii.gz"
        found = nib.load(path)
        assert (np.asarray(nib.as_closest_canonical(found).dataobj) == mask).all()
        seg = pydicom.dcmread(tmp_path / "out" / f"{case}.dcm")
        codes = [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in seg.SegmentSequence]
        assert codes == ["10200004", "64033007"]
        image = SimpleITK.ReadImage(str(path))
        for value, segment in enumerate(segments(tmp_path / "out" / f"{case}.dcm", tmp_path / "dcmqi"), start=1):
            assert lies_at(segment, image, value)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_a_real_series_gives_the_masks_of_the_evaluation(tmp_path: Path, fedscan_data: Path) -> None:
    """Sunnybrook: cine MR, several phases in one series, a frame of reference of its own for each slice."""
    folder = tmp_path / "data"
    source = fedscan_data / "cardiac-mr-dicom" / "SCD0000201"
    shutil.copytree(source / "series", folder / "series")
    shutil.copyfile(source / "derived" / "seg_ED.dcm", folder / "seg.dcm")
    study = Study.model_validate(
        study_of(
            data={"labels": ["endocardium", "myocardium"], "modality": "MR"},
            plan={"spacing": [4, 4, 8], "patch": [32, 32, 8]}, postprocess=["largest_component"],
        ).model_dump(mode="json")
    )  # fmt: skip
    rules: Any = {"endocardium": "LV_endocardium", "myocardium": "LV_myocardium"}
    site = SiteConfig.model_validate({"name": "x", "data": folder, "labels": rules})
    net = model(tmp_path / "model", study)
    expected = judged(study, site, tmp_path, net)
    assert len(expected) == 1
    ((case, mask),) = expected.items()
    assert set(np.unique(mask)) == {0, 1, 2}
    assert predict(str(tmp_path / "model"), [folder], tmp_path / "out", "cpu", tmp_path, as_json=False)
    found = nib.load(tmp_path / "out" / f"{case}.nii.gz")
    assert (np.asarray(nib.as_closest_canonical(found).dataobj) == mask).all()
    # highdicom gives the frames of the instances that the SEG refers to; they are those of the stack, in its order.
    (stack,) = [s for s in scan(folder).stacks if s.id == case]
    assert isinstance(stack, Stack)
    seg = highdicom.seg.segread(tmp_path / "out" / f"{case}.dcm")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == stack.series
    frames = seg.get_pixels_by_source_instance(
        list(stack.instances), combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert (frames.transpose(2, 1, 0) == np.asarray(found.dataobj)).all()
    assert seg.SeriesDescription == "fedscan s: research only"
    assert [s.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator for s in seg.SegmentSequence] == [
        "99FEDSCAN", "99FEDSCAN"
    ]  # fmt: skip


def test_dicom_among_other_images_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    folder = make_phantom(tmp_path / "data", sites=1, cases=1, format="dicom")[0]
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), folder / "preview.nii.gz")
    found = inputs_of([folder], study_of(**ORGANS), {})
    assert [s.name for s in found.subjects] == ["preview"]
    there = len([f for f in folder.rglob("*") if f.is_file() and f.read_bytes()[128:132] == b"DICM"])
    assert there > 10
    assert [f"{there} DICOM files lie among" in text for text in found.left_out] == [True]


def test_dicom_pictures_give_pictures_and_seg(tmp_path: Path) -> None:
    """X-ray pictures, which have no place in the patient: the SEG's frame is the picture, by pydicom."""
    data = {"labels": ["liver", "kidneys"], "dimensions": 2}
    study = study_of(data=data, plan={"size": [32, 32], "patch": [32, 32]}, postprocess=[])
    (folder,) = make_phantom(tmp_path / "data", sites=1, cases=1, dimensions=2, format="dicom")
    net = model(tmp_path / "model", study)
    ((case, mask),) = judged(study, site_of_home(folder), tmp_path, net).items()
    assert predict(str(tmp_path / "model"), [folder], tmp_path / "out", "cpu", folder, as_json=False)
    assert (np.asarray(Image.open(tmp_path / "out" / f"{case}.png")) == mask).all()
    seg = pydicom.dcmread(tmp_path / "out" / f"{case}.dcm")
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    order = [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in seg.PerFrameFunctionalGroupsSequence]
    assert {number: True for number in order} == {
        number: bool((frames[order.index(number)] == (mask == number)).all()) for number in (1, 2)
    }
