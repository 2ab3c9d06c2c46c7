"""The way into a folder: what is found, what is refused, and what hostile files may cost."""

import io
import os
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from client.data.dicom.files import walk
from client.data.dicom.objects import Scan
from client.data.dicom.reading import read_stack
from client.data.dicom.scan import scan
from client.data.dicom.workers import Workers
from client.data.volume import FACTS
from common.errors import DataError
from tests.client.data.dicom.series import data_sets, smooth, write

ARRAY = smooth((5, 9, 8))


def codes(found: Scan) -> set[str]:
    return {finding.code for finding in found.findings}


def test_files_without_preamble_or_ending(tmp_path: Path) -> None:
    for number, data in enumerate(data_sets(ARRAY, syntax=ImplicitVRLittleEndian)):
        stream = io.BytesIO()
        dcmwrite(stream, data, enforce_file_format=True)
        whole = stream.getvalue()
        # Group 0002 and the preamble go, or the preamble alone.
        bare = whole[132:] if number % 2 else whole[132 + 12 + struct.unpack("<L", whole[140:144])[0] :]
        (tmp_path / f"IM{number}").write_bytes(bare)
    found = scan(tmp_path)
    assert found.findings == ()
    assert np.array_equal(read_stack(found.stacks[0]).array[0].transpose(2, 1, 0)[:, ::-1, ::-1], ARRAY)


def test_what_is_not_dicom_is_passed_over(tmp_path: Path) -> None:
    write(data_sets(ARRAY), tmp_path)
    (tmp_path / "notes.txt").write_text("seen by Dr Canary")
    (tmp_path / "empty").touch()
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 100)
    (tmp_path / ".hidden.dcm").write_bytes(b"x" * 200)
    found = scan(tmp_path)
    assert (len(found.stacks), found.findings) == (1, ())
    (tmp_path / "random.dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    assert codes(scan(tmp_path)) == {"dicom-not-dicom"}


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    write(data_sets(ARRAY), tmp_path / "in")
    write(data_sets(ARRAY), tmp_path / "out")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "file").symlink_to(next((tmp_path / "out").iterdir()))
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = scan(tmp_path / "in")
    assert codes(found) == {"dicom-link-outside"}
    assert len(found.stacks) == 1
    assert {listed.file.parent for listed in walk(tmp_path / "in").files} == {tmp_path / "in"}


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_zip_archives(tmp_path: Path) -> None:
    files = write(data_sets(ARRAY), tmp_path / "plain")
    (tmp_path / "in").mkdir()
    names = ["../../evil", "/etc/evil", "a/b", "con", "x" * 300]
    entries = {name: file.read_bytes() for name, file in zip(names, files, strict=True)}
    zipped(tmp_path / "in" / "scans.ZIP", {**entries, "DICOMDIR": files[0].read_bytes(), "notes.txt": b"hello"})
    before = sorted(tmp_path.rglob("*"))
    assert codes(scan(tmp_path / "in")) == {"dicom-archive"}
    assert sorted(tmp_path.rglob("*")) == before
    found = scan(tmp_path / "in", unpacked=tmp_path / "site")
    assert found.findings == ()
    assert len(found.stacks[0].files) == 5
    assert all(file.is_relative_to(tmp_path / "site") for file in found.stacks[0].files)
    again = scan(tmp_path / "in", unpacked=tmp_path / "site")
    assert again == found


def test_what_an_archive_held_does_not_outlive_it(tmp_path: Path) -> None:
    files = write(data_sets(ARRAY), tmp_path / "plain")
    for folder in ("in", "other"):
        (tmp_path / folder).mkdir()
        zipped(tmp_path / folder / "scans.zip", {file.name: file.read_bytes() for file in files})
        scan(tmp_path / folder, unpacked=tmp_path / "site")
    kept = set((tmp_path / "site").iterdir())
    assert len(kept) == 2  # A scan of another folder takes nothing away.
    (tmp_path / "other" / "scans.zip").unlink()
    scan(tmp_path / "in", unpacked=tmp_path / "site")
    (one,) = set((tmp_path / "site").iterdir())
    os.utime(tmp_path / "in" / "scans.zip", ns=(1, 1))
    assert len(scan(tmp_path / "in", unpacked=tmp_path / "site").stacks[0].files) == 5
    assert len(list((tmp_path / "site").iterdir())) == 1
    assert not one.exists()
    (tmp_path / "in" / "scans.zip").unlink()
    scan(tmp_path / "in", unpacked=tmp_path / "site")
    assert list((tmp_path / "site").iterdir()) == []


def test_zip_bombs_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "in"
    data.mkdir()
    zipped(data / "bomb.zip", {"a": b"\0" * 128 + b"DICM" + b"\0" * 50_000_000})
    (data / "cut.zip").write_bytes((data / "bomb.zip").read_bytes()[:-40])
    lying = bytearray(zipped(data / "lying.zip", {"a": b"\0" * 128 + b"DICM" + os.urandom(100_000)}).read_bytes())
    at = lying.rindex(b"PK\x01\x02")
    lying[at + 24 : at + 28] = struct.pack("<L", 140)
    (data / "lying.zip").write_bytes(lying)
    found = scan(data, unpacked=tmp_path / "site")
    assert [f.code for f in found.findings] == ["dicom-archive"] * 3
    assert list((tmp_path / "site").iterdir()) == []


def test_second_scan_opens_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(data_sets(ARRAY), tmp_path / "in")
    index, asked = tmp_path / "site" / "dicom.sqlite", []
    ask = Workers.ask

    def counting(self: Workers, task: str, **arguments: object) -> dict[str, object]:
        asked.extend(arguments["paths"])  # type: ignore[arg-type]
        return ask(self, task, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Workers, "ask", counting)
    first = scan(tmp_path / "in", index=index)
    assert sorted(asked) == sorted(map(str, files))
    asked.clear()
    assert scan(tmp_path / "in", index=index) == first
    assert asked == []
    changed = dcmread(files[0])
    changed.SeriesDescription = "changed"
    changed.save_as(files[0])
    files[4].unlink()
    assert len(scan(tmp_path / "in", index=index).stacks[0].files) == 4
    assert asked == [str(files[0])]
    index.write_bytes(b"no data base" * 1000)
    assert len(scan(tmp_path / "in", index=index).stacks) == 1


def test_progress_counts_up(tmp_path: Path) -> None:
    write(data_sets(ARRAY), tmp_path)
    steps: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, of: steps.append((done, of)))
    assert steps[-1] == (5, 5)
    assert steps == sorted(steps)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "none")


def spoilt(folder: Path, **elements: object) -> list[Path]:
    def change(number: int, data: Dataset) -> None:
        for name, value in elements.items():
            setattr(data, name, value)

    return write(data_sets(ARRAY, change=change), folder)


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"Rows": 65535, "Columns": 65535}, "dicom-too-large"),
        ({"Rows": 16384, "Columns": 16384, "NumberOfFrames": "20000"}, "dicom-too-large"),
        ({"NumberOfFrames": "2147483647"}, "dicom-too-large"),
        ({"Rows": 0}, "dicom-header"),
        ({"Rows": 4096, "Columns": 4096}, "dicom-damaged"),
        ({"PixelSpacing": [0, 0]}, "dicom-header"),
        ({"PixelSpacing": [1e-9, 1]}, "dicom-header"),
        ({"RescaleSlope": 0}, "dicom-header"),
        ({"BitsStored": 20}, "dicom-header"),
        ({"BitsAllocated": 13}, "dicom-header"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "dicom-orientation"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "dicom-orientation"),
        ({"SliceThickness": 2, "ImagePositionPatient": [0, 0, 5]}, "dicom-split-by-number"),
    ],
)
def test_headers_that_cannot_be_right(tmp_path: Path, elements: dict[str, object], code: str) -> None:
    spoilt(tmp_path, **elements)
    start = time.monotonic()
    assert code in codes(scan(tmp_path))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("value", [b"nan ", b"inf ", b"1e999 ", b"abc ", b"\xff\xfe"])
def test_numbers_that_are_none(tmp_path: Path, value: bytes) -> None:
    for path in write(data_sets(ARRAY), tmp_path):
        data = path.read_bytes()
        at = data.index(b"\x28\x00\x53\x10DS")
        old = struct.unpack("<H", data[at + 6 : at + 8])[0]
        path.write_bytes(data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + old :])
    found = scan(tmp_path)
    assert (found.stacks, codes(found)) == ((), {"dicom-header"})


def test_cut_off_files(tmp_path: Path) -> None:
    files = write(data_sets(ARRAY), tmp_path)
    whole = files[2].read_bytes()
    for length in range(0, len(whole), 23):
        files[2].write_bytes(whole[:length])
        found = scan(tmp_path)
        if length < 132:
            # Not to be told from a file of another kind: the gap shows it.
            assert codes(found) == {"dicom-missing-slice"}
        else:
            assert codes(found) & {"dicom-damaged", "dicom-header", "dicom-missing-slice"}
        assert found.stacks == ()


def test_deflated_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    (data,) = data_sets(ARRAY[:1])
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    stream = io.BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    start = stream.getvalue()[: 132 + 12 + struct.unpack("<L", stream.getvalue()[140:144])[0]]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(packer.compress(b"\0" * 2**20) for _ in range(512)) + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(start + body)
    before = time.monotonic()
    found = scan(tmp_path)
    assert time.monotonic() - before < 5
    assert codes(found) == {"dicom-transfer-syntax"}
    assert "deflated" in found.findings[0].what


def test_nested_sequences(tmp_path: Path) -> None:
    inner = Dataset()
    for _ in range(400):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        outer["ReferencedSeriesSequence"].is_undefined_length = True
        inner = outer
    (data,) = data_sets(ARRAY[:1])
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del data.PixelData, data.Rows, data.Columns
    data.ReferencedSeriesSequence = inner.ReferencedSeriesSequence
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        data.save_as(tmp_path / "deep.dcm", enforce_file_format=True)
    finally:
        sys.setrecursionlimit(limit)
    found = scan(tmp_path)
    assert (found.stacks, found.items) == ((), ())
    assert codes(found) <= {"dicom-damaged", "dicom-header"}
    assert codes(found)


def test_uids_that_are_paths(tmp_path: Path) -> None:
    for path in write(data_sets(ARRAY), tmp_path):
        data = path.read_bytes()
        at = data.index(b"\x08\x00\x18\x00UI") + 8
        path.write_bytes(data[:at] + b"../../../../x" + data[at + 13 :])
    found = scan(tmp_path)
    assert (found.stacks, codes(found)) == ((), {"dicom-header"})


def test_findings_name_no_patient(tmp_path: Path) -> None:
    spoilt(tmp_path / "a", RescaleSlope=0)
    for path in spoilt(tmp_path / "b")[1:3]:
        path.unlink()
    found = scan(tmp_path)
    words = " ".join(f"{f.case} {f.what} {f.remedy}" for f in found.findings)
    assert len(found.findings) == 2
    assert "anary" not in words
    assert "1.2.826" not in words


def test_segmentations_and_contours_are_listed_with_what_they_refer_to(tmp_path: Path) -> None:
    (image,) = data_sets(ARRAY[:1])
    (data,) = data_sets(ARRAY[:1])
    data.SOPClassUID, data.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"
    del data.PixelData, data.Rows, data.Columns
    contour, series, study, frame = Dataset(), Dataset(), Dataset(), Dataset()
    contour.ReferencedSOPClassUID, contour.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    series.SeriesInstanceUID, series.ContourImageSequence = image.SeriesInstanceUID, Sequence([contour])
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = image.FrameOfReferenceUID, Sequence([study])
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    del data.FrameOfReferenceUID
    data.save_as(tmp_path / "contours", enforce_file_format=True)
    (item,) = scan(tmp_path).items
    assert item.kind == "rtstruct"
    assert item.referenced_series == (image.SeriesInstanceUID,)
    assert item.referenced_instances == (image.SOPInstanceUID,)
    assert item.frame_of_reference == image.FrameOfReferenceUID


def test_one_instance_with_two_pictures_is_no_copy(tmp_path: Path) -> None:
    sets = data_sets(ARRAY)
    paths = write(sets, tmp_path)
    (tmp_path / "copy").write_bytes(paths[2].read_bytes())
    found = scan(tmp_path)
    assert (len(found.stacks), codes(found)) == (1, {"dicom-copies"})
    sets[2].PixelData = sets[3].PixelData
    sets[2].save_as(tmp_path / "copy")
    found = scan(tmp_path)
    assert (found.stacks, codes(found)) == ((), {"dicom-same-instance", "dicom-duplicate-slice"})


def test_facts_are_those_that_are_listed(tmp_path: Path) -> None:
    spoilt(tmp_path, Laterality="L", ImageLaterality="R", BurnedInAnnotation="NO", WindowCenter=40, KVP=120)
    (stack,) = scan(tmp_path).stacks
    assert set(stack.facts) <= set(FACTS)
    assert stack.facts["laterality"] == "R"
    assert (stack.facts["burned_in"], stack.facts["window_centre"], stack.facts["kvp"]) == ("NO", 40, 120)
    assert stack.facts["identifying"] == "PatientName PatientID"
    assert "Canary" not in str(stack)
    assert "canary" not in str(stack.facts) + stack.patient
