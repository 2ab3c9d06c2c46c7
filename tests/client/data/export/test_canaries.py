"""Nothing of a header gets out: unique strings in every attribute that holds text, searched in every written byte."""

import base64
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from client.data.export.attributes import CODES, SEQUENCES

MARK = "ZQXKCANARY"
DIGITS = "48151623"
# What the slice itself needs to be a slice; all else is planted.
NEEDED = {
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "BodyPartExamined", "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "RescaleIntercept", "RescaleSlope", "NumberOfFrames", "ReferencedSOPInstanceUID",
    "BurnedInAnnotation", "SpecificCharacterSet",
}  # fmt: skip
TEXTS = ("AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT")


PLANTED = [
    (tag, vr)
    for tag, (vr, *_) in DicomDictionary.items()
    if (vr in TEXTS or vr == "UI") and keyword_for_tag(tag) not in {"", *NEEDED} and tag >> 16 > 0x0002
]


def plant(data: Dataset, number: int = 0, every: int = 1) -> int:
    """Canaries in the text and UID attributes of the standard that `data` does not need, or in one of `every`."""
    for tag, vr in PLANTED[number % every :: every]:
        text = f"1.2.{DIGITS}.{number}" if vr == "UI" else f"{MARK}{number}"
        data.add(DataElement(tag, vr, text, validation_mode=0))
        number += 1
    return number


def full_of_canaries(data: Dataset) -> None:
    number = plant(data)
    for name in sorted(
        SEQUENCES | CODES | {"RequestAttributesSequence", "OriginalAttributesSequence", "ContentSequence"}
    ):
        item, inner = Dataset(), Dataset()
        number = plant(inner, plant(item, number, 50), 50)
        item.add(DataElement(Tag(0x0040, 0xA730), "SQ", Sequence([inner])))
        item.private_block(0x0013, f"{MARK} INC", create=True).add_new(1, "LO", f"{MARK}{number}")
        data.add(DataElement(Tag(name), "SQ", Sequence([item])))
    data.private_block(0x0009, f"{MARK} CREATOR", create=True).add_new(1, "UN", f"{MARK}private".encode())
    data.add_new(0x60003000, "OW", f"{MARK}overlay!".encode())
    data.add_new(0x60000010, "US", 4)
    data.add_new(0x50000010, "US", 4)
    data.add_new(0x50003000, "OW", f"{MARK}curve!!!".encode())
    data.add_new(0x00880200, "SQ", Sequence([Dataset()]))
    data[0x00880200].value[0].add_new(0x7FE00010, "OW", f"{MARK}icon".encode())
    data.add_new(0xFFFCFFFC, "OB", f"{MARK}padding!".encode())
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", f"{MARK}TYPE"]
    data.PixelData += f"{MARK}behind".encode()
    data.KVP = "120"


def spellings(text: str) -> list[bytes]:
    """`text` plain, in UTF-16, in hex, and in base64 at each of the three places where it can begin."""
    raw = text.encode()
    found = [raw, text.encode("utf-16-le"), text.encode("utf-16-be"), raw.hex().encode(), raw.hex().upper().encode()]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        found.append(encoded[(0, 2, 3)[before] : len(encoded) // 4 * 4 - 4])
    return found


def leaks(folder: Path) -> list[str]:
    wanted = [s for text in (MARK, DIGITS, "DOE", "MRN-", "JANE", "patient-1", "case-1") for s in spellings(text)]
    found = []
    for path in folder.rglob("*"):
        data = str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        found += [f"{path.name}: {s!r}" for s in wanted if len(s) > 3 and s in data]
    return found


@pytest.mark.parametrize(
    "options", [{}, {"dates": "shift"}, {"characteristics": True, "faces": True, "inspected": True}]
)
def test_no_canary_leaves(hospital: Any, options: dict[str, object]) -> None:
    case = hospital.patient(change=full_of_canaries)
    assert len(leaks(hospital.scans)) > 5
    first = case.images[0].files[0]
    first.write_bytes((MARK * 13).encode()[:128] + first.read_bytes()[128:])
    out, record = hospital.export(case, **options)
    assert record.cases == 1
    assert record.removed > 1000
    assert leaks(out) == []


def test_numbers_that_are_none_are_not_kept(hospital: Any) -> None:
    case = hospital.patient(label="")
    header, wrong = b"\x18\x00\x60\x00DS\x04\x00", MARK[:4].encode()
    for file in case.images[0].files:
        raw = file.read_bytes()
        assert raw.count(header + b"120 ") == 1
        file.write_bytes(raw.replace(header + b"120 ", header + wrong))
    out, record = hospital.export(case)
    assert len(record.files) == 4
    assert not any(wrong in path.read_bytes() for path in out.rglob("*.dcm"))
    assert all("KVP" not in d or d.KVP is None for d in map(dcmread, out.rglob("*.dcm")))


def test_bits_that_held_an_overlay_are_cleared_and_the_voxels_stay(hospital: Any) -> None:
    before: list[bytes] = []

    def change(data: Dataset) -> None:
        before.append(data.PixelData)
        values = struct.unpack(f"<{len(data.PixelData) // 2}H", data.PixelData)
        data.PixelData = struct.pack(f"<{len(values)}H", *(v | (i % 3 == 0) << 14 for i, v in enumerate(values)))
        data.add_new(0x60000102, "US", 14)
        data.add_new(0x60000100, "US", 16)

    out, _ = hospital.export(hospital.patient(label="", change=change))
    copies = sorted(map(dcmread, out.rglob("*.dcm")), key=lambda d: int(d.InstanceNumber))
    assert [d.PixelData for d in copies] == before


def test_comments_inside_compressed_frames_stay(hospital: Any) -> None:
    """JPEG-LS has COM segments as JPEG has; a decoder skips them."""
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import JPEGLSLossless

    case = hospital.patient(label="")
    voxels = {}
    for file in case.images[0].files:
        data = dcmread(file)
        voxels[int(data.InstanceNumber)] = data.pixel_array.copy()
        data.compress(JPEGLSLossless)
        frame = next(generate_frames(data.PixelData, number_of_frames=1))
        comment = f"{MARK} was here".encode()
        frame = frame[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + frame[2:]
        data.PixelData = encapsulate([frame])
        data.save_as(file)
    assert leaks(hospital.scans)
    out, _ = hospital.export(case)
    assert leaks(out) == []
    for path in out.rglob("*.dcm"):
        data = dcmread(path)
        assert (data.pixel_array == voxels[int(data.InstanceNumber)]).all()


def test_log_of_the_search_itself_finds_what_is_there(tmp_path: Path) -> None:
    for number, data in enumerate((MARK.encode(), MARK.encode("utf-16-be"), MARK.encode().hex().encode())):
        (tmp_path / f"{number}").write_bytes(b"x" * number + data)
    (tmp_path / "9").write_bytes(base64.b64encode(f"1{MARK}89012".encode()))
    found = {re.match(r"\d", line)[0] for line in leaks(tmp_path)}  # type: ignore[index]
    assert found == {"0", "1", "2", "9"}
