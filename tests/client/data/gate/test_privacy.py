"""Identity in headers, paths and files is found, counted, and never repeated; clean scans raise nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from client.data.dicom.workers import Workers
from client.data.gate.patterns import kinds_in, repeats
from client.data.gate.privacy import check_privacy
from client.data.volume import Case, Finding, Stack

VALUES = ("Quixote", "QUIXOTE", "Sancho", "A7788123", "19470229", "Dulcinea", "ROCINANTE")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


def dicom(path: Path, **attributes: object) -> Case:
    """A case with one slice at `path`."""
    data = Dataset()
    plain = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.1",
        "Modality": "CT", "Rows": 1, "Columns": 1, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }  # fmt: skip
    for name, value in {**plain, **attributes}.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    rows = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    stack = Stack((path,), (0,), ("1.2.3",), "1.1", "1.2", (), rows, (1, 1, 1), "CT")
    return Case(f"c{abs(hash(path)) % 10**6}", "p", (stack,), None)


def told(findings: list[Finding]) -> dict[str, str]:
    assert not any(f.severity == "error" for f in findings)
    shown = json.dumps([(f.code, f.what, f.remedy) for f in findings])
    assert not any(value.lower() in shown.lower() for value in VALUES)
    return {f.code: f.what for f in findings}


def test_identity_in_dicom_is_named_by_attribute_only(tmp_path: Path, workers: Workers) -> None:
    private = Dataset()
    private.private_block(0x0009, "ROCINANTE", create=True).add_new(1, "LO", "Dulcinea")
    cases = [
        dicom(tmp_path / "Sancho_QUIXOTE" / "a7788123" / "1", PatientName="Quixote^Sancho", PatientID="A7788123",
              SeriesDescription="ax t2 Quixote", OperatorsName="Dulcinea"),
        dicom(tmp_path / "b" / "2", PatientName="Quixote^Sancho", PatientBirthDate="19470229"),
        dicom(tmp_path / "c" / "3"),
    ]  # fmt: skip
    found = told(check_privacy(cases, tmp_path, workers))
    assert found["privacy-header"] == (
        "2 of 3 series: PatientName (2), PatientID (1), OperatorsName (1), PatientBirthDate (1)"
    )
    assert found["privacy-path"] == (
        "PatientName of the header in the path of 1 series; PatientID of the header in the path of 1 series"
    )
    assert found["privacy-text"] == "SeriesDescription names the patient or another person"
    assert set(found) == {"privacy-header", "privacy-path", "privacy-text"}


@pytest.mark.parametrize(
    ("attributes", "codes"),
    [
        ({"BurnedInAnnotation": "YES"}, {"burned-in"}),
        ({"BurnedInAnnotation": "NO"}, set()),
        ({}, set()),
        ({"Modality": "US"}, {"burned-in-unknown"}),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, set()),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, {"burned-in-unknown", "screen"}),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, {"burned-in-unknown", "screen"}),
        ({"PatientName": "P-1", "PatientID": "P-1", "PatientIdentityRemoved": "YES"}, set()),
        ({"PatientName": "P-1"}, {"privacy-header"}),
    ],
)
def test_text_in_pixels_screens_and_what_is_clean(
    tmp_path: Path, workers: Workers, attributes: dict[str, object], codes: set[str]
) -> None:
    case = dicom(tmp_path / "a" / "1", **attributes)
    assert set(told(check_privacy([case], tmp_path, workers))) == codes


def test_private_elements_are_counted(tmp_path: Path, workers: Workers) -> None:
    case = dicom(tmp_path / "1")
    from pydicom import dcmread

    path = case.images[0].files[0]  # type: ignore[union-attr]
    data = dcmread(path)
    data.private_block(0x0009, "ROCINANTE", create=True).add_new(1, "LO", "Dulcinea")
    data.save_as(path)
    assert told(check_privacy([case], tmp_path, workers)) == {"privacy-private": "1 of 1 series have private elements"}


def test_unreadable_files_are_the_readers_business(tmp_path: Path, workers: Workers) -> None:
    case = dicom(tmp_path / "1")
    case.images[0].files[0].write_bytes(b"no DICOM at all")  # type: ignore[union-attr]
    assert check_privacy([case], tmp_path, workers) == []


def nifti(path: Path, **fields: str) -> Case:
    image: Any = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))  # type: ignore[no-untyped-call]
    for name, value in fields.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return Case(path.name, path.name, (path,), None)


def test_identity_in_other_files(tmp_path: Path, workers: Workers) -> None:
    picture = tmp_path / "x.png"
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "QUIXOTE^SANCHO 19470228")
    Image.new("L", (2, 2)).save(picture, pnginfo=info)
    embedded = nifti(tmp_path / "e.nii.gz")
    image: Any = nib.load(tmp_path / "e.nii.gz")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"MRN A7788123"))
    nib.save(image, tmp_path / "e.nii.gz")
    cases = [nifti(tmp_path / "a.nii.gz", descrip="Quixote^Sancho"), Case("x", "x", (picture,), None), embedded]
    found = told(check_privacy(cases, tmp_path, workers))
    assert set(found) == {"privacy-file-header"}
    assert sorted(found["privacy-file-header"].split("; ")) == [
        "a date in its texts (1 cases)",
        "a name in its texts (1 cases)",
        "a name in the field descrip (1 cases)",
        "a number as patients have it in a header extension (1 cases)",
    ]


def test_paths_that_look_like_identity(tmp_path: Path, workers: Workers) -> None:
    cases = [nifti(tmp_path / name) for name in ("QUIXOTE^SANCHO.nii", "1947-02-28/x.nii", "12345678.nii", "c_001.nii")]
    found = told(check_privacy(cases, tmp_path, workers))
    assert sorted(found["privacy-path"].split("; ")) == [
        "a date in the path of 1 case(s)",
        "a name in the path of 1 case(s)",
        "a number as patients have it in the path of 1 case(s)",
    ]
    # What lies above the scans says nothing.
    assert check_privacy([nifti(tmp_path / "1947-02-28" / "y.nii")], tmp_path / "1947-02-28", workers) == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("DOE^JOHN", {"name"}), ("doe^jane^m", {"name"}), ("Müller^Änne", {"name"}), ("x^2", set()), ("a^b", set()),
        ("19560312", {"date"}), ("12.03.1956", {"date"}), ("07-07-2011", {"date"}), ("1956-3-12", set()),
        ("19991332", {"number"}), ("MRN 12345", {"number"}), ("pat_id-77123", {"number"}), ("12345678", {"number"}),
        ("1234567.nii", {"number"}), ("img_12345678_t2", {"number"}), ("case_0001", set()), ("LIDC-IDRI-0001", set()),
        ("SCD0000101", set()), ("1.3.6.1.4.1.14519.5.2.1.1234567890.7", set()), ("dcm2niix v1.0.20211006", set()),
        ("hippocampus_001", set()), ("TE=3.5;Time=101112.000", set()), ("a.b@c.no", {"mail"}), ("born 1956", {"date"}),
    ],
)  # fmt: skip
def test_patterns(text: str, kinds: set[str]) -> None:
    assert kinds_in(text) == kinds


@pytest.mark.parametrize(
    ("text", "values", "there"),
    [
        ("scans/JaneDoe/1", ["DOE^JANE"], False), ("scans/DoeJane/1", ["DOE^JANE"], True),
        ("scans/jane-1", ["DOE^JANE"], True), ("scans/12345678/a", ["1234-5678"], True), ("scans/77", ["77"], False),
        ("scans/anonymous", ["ANONYMOUS"], False), ("a/li/b", ["LI^WU"], False), ("x/1947-02-28/y", ["19470228"], True),
    ],
)  # fmt: skip
def test_values_of_the_header_are_found_again(text: str, values: list[str], there: bool) -> None:
    assert repeats(text, values) is there


@pytest.mark.data
def test_public_sets_in_nifti_and_png_raise_nothing(fedscan_data: Path, workers: Workers) -> None:
    files = [f for kind in ("*.nii.gz", "*.png") for f in sorted(fedscan_data.rglob(kind))[::25]]
    assert len(files) > 20
    assert check_privacy([Case(f.name, "", (f,), None) for f in files], fedscan_data, workers) == []
