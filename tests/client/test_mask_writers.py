"""Masks lie where the scan lies: judged by nibabel and SimpleITK for NIfTI, by dcmqi, highdicom and pydicom for SEG."""

import json
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
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from client.data.readers import nifti
from client.data.writers.nifti import turned_back, write_like, write_on
from client.data.writers.seg import write_seg

ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "SAL", "ASR", "IPL"]
LABELS = [
    {"value": 1, "name": "liver", "code": "10200004", "meaning": "Liver"},
    {"value": 2, "name": "cyst", "code": "367643001", "meaning": "Cyst"},
    {"value": 3, "name": "a-structure-without-a-code", "code": "", "meaning": ""},
]
ABOUT = {"series": "fedscan s: research only", "name": "s", "version": "0.1.0 abc", "model": "ab" * 32}


def stored(orientation: str, oblique: bool, shape: tuple[int, int, int] = (7, 5, 4)) -> nib.Nifti1Image:
    """A scan whose voxel values say where they are."""
    codes = nib.orientations.axcodes2ornt(orientation)
    affine = np.diag([1.5, 2.0, 3.0, 1.0]) @ nib.orientations.inv_ornt_aff(codes, shape)
    if oblique:
        c, s = np.cos(0.3), np.sin(0.3)
        affine = np.array([[c, -s, 0, 9.0], [s, c, 0, -4.0], [0, 0, 1, 30.0], [0, 0, 0, 1]]) @ affine
    return nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_has_the_very_grid_of_its_scan(tmp_path: Path, orientation: str, oblique: bool) -> None:
    """The mask of all voxels above a value, made on the turned volume, must be that of the file, voxel for voxel."""
    image = stored(orientation, oblique)
    image.header["descrip"] = b"Mr Smith"
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = nifti.read(tmp_path / "scan.nii.gz")
    mask = (volume.array[0] > 77).astype(np.uint8)
    write_like(mask, volume, tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", "fedscan s: research only")
    found = nib.load(tmp_path / "mask.nii.gz")
    assert found.get_data_dtype() == np.uint8
    assert (np.asarray(found.dataobj) == (np.asarray(image.dataobj) > 77)).all()
    assert np.array_equal(found.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    assert b"Smith" not in bytes(found.header.binaryblock)
    ours, theirs = (SimpleITK.ReadImage(str(tmp_path / f"{n}.nii.gz")) for n in ("mask", "scan"))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, what)() == getattr(theirs, what)()


@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (2, 0), (0, 1), (4, 1)])
def test_the_codes_of_the_scan_stay(tmp_path: Path, sform: int, qform: int) -> None:
    image = stored("LPS", False)
    image.set_sform(image.affine, sform)
    image.set_qform(image.affine, qform)
    nib.save(image, tmp_path / "scan.nii")
    volume = nifti.read(tmp_path / "scan.nii")
    write_like(np.ones(volume.array.shape[1:], np.uint8), volume, tmp_path / "scan.nii", tmp_path / "m.nii.gz", "")
    found = nib.load(tmp_path / "m.nii.gz")
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (sform, qform)
    assert np.array_equal(found.affine, nib.load(tmp_path / "scan.nii").affine)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1)])
def test_a_slice_stays_a_slice(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(30, dtype=np.int16).reshape(shape)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 2.0, 3.0, 1.0])), tmp_path / "scan.nii")
    volume = nifti.read(tmp_path / "scan.nii")
    mask = (volume.array[0] > 11).astype(np.uint8).reshape(volume.array.shape[1:3])
    write_like(mask, volume, tmp_path / "scan.nii", tmp_path / "m.nii.gz", "")
    assert (np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj) == (values > 11)).all()


def test_a_mask_of_another_size_is_no_mask() -> None:
    with pytest.raises(ValueError, match="a mask of"):
        turned_back(np.zeros((2, 3, 4), np.uint8), np.eye(4), np.eye(4), (4, 3, 2))


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_on(np.ones((3, 4, 5), np.uint8), np.diag([1.0, 2.0, 3.0, 1.0]), tmp_path / f"{name}.nii.gz", "x")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def slice_of(number: int, series: str, **other: Any) -> Dataset:
    """A CT slice, tilted, 6 rows of 8 columns."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CTImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SpecificCharacterSet, made.PatientName, made.PatientID = "ISO_IR 100", "Müller^Jörg", "77"
    made.PatientBirthDate, made.PatientSex, made.StudyInstanceUID = "19700101", "O", "1.2.3"
    made.SeriesInstanceUID, made.FrameOfReferenceUID, made.Modality = series, "1.2.9", "CT"
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20200101", "101010", "1", ""
    made.ReferringPhysicianName, made.Manufacturer, made.PositionReferenceIndicator = "", "x", ""
    made.Rows, made.Columns, made.PixelSpacing, made.SliceThickness = 6, 8, [0.5, 0.75], 2
    made.InstanceNumber = number + 1
    normal = np.cross(ROW, COLUMN)
    made.ImageOrientationPatient = [*ROW, *COLUMN]
    made.ImagePositionPatient = [float(v) for v in np.array([-10.0, 5.0, 30.0]) + 2.5 * number * normal]
    for keyword, value in other.items():
        setattr(made, keyword, value)
    return made


ROW, COLUMN = [1.0, 0.0, 0.0], [0.0, float(np.cos(0.2)), float(np.sin(0.2))]


def series(folder: Path, change: Any = lambda number: {}) -> list[str]:
    folder.mkdir()
    uid = generate_uid()
    for number in range(4):
        slice_of(number, uid, **change(number)).save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return [str(folder / f"{n}.dcm") for n in range(4)]


def some_mask(folder: Path) -> np.ndarray:
    mask = np.zeros((4, 6, 8), np.uint8)
    mask[1, 2:4, 1:3], mask[2, 0, 7], mask[3, 5, 0:4] = 1, 2, 3
    np.save(folder / "mask.npy", mask)
    return mask


def wrote(folder: Path, files: list[str], mask: np.ndarray, frames: list[int] | None = None) -> Dataset:
    np.save(folder / "mask.npy", mask)
    found = write_seg(
        files=files, frames=frames or [0] * len(files), mask=str(folder / "mask.npy"), labels=LABELS, about=ABOUT,
        into=str(folder / "seg.dcm"),
    )  # fmt: skip
    assert found["frames"] > 0
    return pydicom.dcmread(folder / "seg.dcm")


def test_dcmqi_finds_each_label_at_its_place_under_its_code(tmp_path: Path) -> None:
    """dcmqi's masks, in patient coordinates by SimpleITK, against the voxels by the slices' own headers."""
    files, mask = series(tmp_path / "ct"), some_mask(tmp_path)
    wrote(tmp_path, files, mask)
    tool = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or "segimage2itkimage"
    command = [tool, "--inputDICOM", str(tmp_path / "seg.dcm"), "--outputDirectory", str(tmp_path / "out"), "-t", "nii"]
    (tmp_path / "out").mkdir()
    subprocess.run(command, check=True, capture_output=True)
    about = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert about["SeriesDescription"] == "fedscan s: research only"
    kinds = {}
    for (segment,) in about["segmentAttributes"]:
        kind, category = (segment[f"SegmentedProperty{w}CodeSequence"] for w in ("Type", "Category"))
        kinds[segment["labelID"]] = (
            kind["CodeValue"], kind["CodingSchemeDesignator"], kind["CodeMeaning"], category["CodeValue"]
        )  # fmt: skip
        assert segment["SegmentAlgorithmType"] == "AUTOMATIC"
        image = SimpleITK.ReadImage(str(tmp_path / "out" / f"{segment['labelID']}.nii.gz"))
        points = {
            tuple(np.round(image.TransformIndexToPhysicalPoint([int(i) for i in reversed(index)]), 3))
            for index in np.argwhere(SimpleITK.GetArrayFromImage(image))
        }
        assert points == {
            tuple(np.round(place(files[k], i, j), 3)) for k, i, j in np.argwhere(mask == segment["labelID"])
        }
    # 10200004 and 367643001 are SNOMED CT's Liver and Cyst; the categories are those of PS3.16, CID 7150.
    assert kinds[1] == ("10200004", "SCT", "Liver", "91723000")
    assert kinds[2] == ("367643001", "SCT", "Cyst", "49755003")
    assert kinds[3][1:] == ("99FEDSCAN", "a-structure-without-a-code", "85756007")
    assert len(kinds[3][0]) <= 16


def place(file: str, row: int, column: int) -> np.ndarray:
    """PS3.3 C.7.6.2.1.1: where a voxel's centre is, LPS."""
    header = pydicom.dcmread(file)
    orientation = np.array(header.ImageOrientationPatient, float)
    down, right = (float(s) for s in header.PixelSpacing)
    start: np.ndarray = np.array(header.ImagePositionPatient, float)
    return start + orientation[:3] * right * column + orientation[3:] * down * row


def test_highdicom_reads_the_mask_by_the_instances_it_refers_to(tmp_path: Path) -> None:
    files, mask = series(tmp_path / "ct"), some_mask(tmp_path)
    made = wrote(tmp_path, files, mask)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [pydicom.dcmread(f).SOPInstanceUID for f in files]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert (found == mask).all()
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == pydicom.dcmread(files[0]).SeriesInstanceUID
    assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == ("1.2.3", "1.2.9")
    assert str(made.PatientName) == "Müller^Jörg"
    algorithm = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("s", "0.1.0 abc")
    assert ABOUT["model"] in algorithm.AlgorithmParameters
    assert (made.ContentLabel, made.ContentDescription) == ("RESEARCH", "Research only. Not for diagnosis.")


def test_labels_that_were_not_found_leave_no_segment(tmp_path: Path) -> None:
    files, mask = series(tmp_path / "ct"), some_mask(tmp_path)
    mask[mask == 1] = 0
    made = wrote(tmp_path, files, mask)
    assert [s.SegmentLabel for s in made.SegmentSequence] == ["cyst", "a-structure-without-a-code"]
    np.save(tmp_path / "mask.npy", np.zeros_like(mask))
    nothing = write_seg(
        files=files, frames=[0] * 4, mask=str(tmp_path / "mask.npy"), labels=LABELS, about=ABOUT,
        into=str(tmp_path / "none.dcm"),
    )  # fmt: skip
    assert nothing == {"frames": 0}
    assert not (tmp_path / "none.dcm").exists()


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_slices_with_frames_of_reference_of_their_own(tmp_path: Path) -> None:
    """As the Sunnybrook cine series has them: the SEG stands in the frame of reference of the first."""
    files = series(tmp_path / "ct", lambda n: {"FrameOfReferenceUID": f"1.2.{n + 50}", "StudyDate": "20120000"})
    mask = some_mask(tmp_path)
    made = wrote(tmp_path, files, mask)
    assert (made.FrameOfReferenceUID, made.StudyDate) == ("1.2.50", "")
    uids = [pydicom.dcmread(f).SOPInstanceUID for f in files]
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert (found == mask).all()
