"""Defects of files and folders: cut off, lying about their size, packed, hidden, hostile."""

import io
import os
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from simulations.dicom_series import uid
from tests.client.data.dicom.defects import change, defect, patch, renamed, set_all
from tests.client.data.dicom.good import Good, Truth, save

_META = 132  # preamble and the letters DICM


def patch_one(good: Good, folder: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in the fourth file, which must have them."""
    path = save(good.sets(), folder)[3]
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def pixel_element(data: bytes) -> int:
    """Where the element of the pixels begins in an explicit little-endian file."""
    return data.rindex(b"\xe0\x7f\x10\x00O")


# --- cut off, lying ---


@defect("dicom-damaged")
def pixels_cut_off(good: Good, folder: Path) -> list[Truth]:
    path = save(good.sets(), folder)[3]
    path.write_bytes(path.read_bytes()[:-1500])
    return []


@defect("dicom-damaged", "dicom-missing-slice")
def header_cut_off(good: Good, folder: Path) -> list[Truth]:
    path = save(good.sets(), folder)[3]
    path.write_bytes(path.read_bytes()[:700])
    return []


@defect("dicom-damaged")
def pixels_absent(good: Good, folder: Path) -> list[Truth]:
    change(good, folder, lambda data, i: data.pop("PixelData") if i == 3 else None)
    return []


@defect()
def bytes_after_the_pixels(good: Good, folder: Path) -> list[Truth]:
    """Trailing padding, an element of its own."""
    return change(good, folder, lambda data, i: data.add_new(0xFFFCFFFC, "OB", bytes(512)))


@defect("dicom-too-large")
def frame_of_100_gb(good: Good, folder: Path) -> list[Truth]:
    change(good, folder, lambda data, i: setattr(data, "NumberOfFrames", 2**31 - 1))
    for path in folder.glob("*.dcm"):
        data = path.read_bytes()
        for element in (0x10, 0x11):
            at = data.index(struct.pack("<HH", 0x28, element) + b"US")
            data = data[: at + 8] + b"\xff\xff" + data[at + 10 :]
        path.write_bytes(data)
    return []


@defect()
def pixels_of_almost_4_gib(good: Good, folder: Path) -> list[Truth]:
    """The length of the pixels lies; how many there are follows from the size of the frame."""
    for path in save(good.sets(), folder):
        data = path.read_bytes()
        at = pixel_element(data)
        path.write_bytes(data[: at + 8] + struct.pack("<I", 0xFFFFFFF0) + data[at + 12 :])
    return [good.truth]


@defect("dicom-too-large", "dicom-damaged", "dicom-header")
def element_of_almost_4_gib(good: Good, folder: Path) -> list[Truth]:
    """The length of an element before the geometry."""
    for path in save(good.sets(), folder):
        data = path.read_bytes()
        at = data.index(struct.pack("<HH", 0x10, 0x10) + b"PN")
        huge = struct.pack("<HH2sHI", 0x09, 0x1001, b"OB", 0, 0xFFFFFFF0)
        path.write_bytes(data[:at] + huge + data[at:])
    return []


@defect()
def group_length_of_the_meta_header_wrong(good: Good, folder: Path) -> list[Truth]:
    path = save(good.sets(), folder)[3]
    data = path.read_bytes()
    path.write_bytes(data[: _META + 8] + struct.pack("<I", 0xFFFFFF00) + data[_META + 12 :])
    return [good.truth]


@defect("dicom-too-large", "dicom-damaged", "dicom-header")
def sequences_300_deep(good: Good, folder: Path) -> list[Truth]:
    sequence = struct.pack("<HH2sHI", 0x08, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    before = struct.pack("<HH", 0x10, 0x10) + b"PN"
    patch_one(good, folder, before, (sequence + item) * 300 + ends * 300 + before)
    return []


# --- syntaxes ---


def packed(good: Good, folder: Path, syntax: str) -> list[Truth]:
    return change(good, folder, lambda data, i: data.compress(syntax, generate_instance_uid=False))


@defect()
def rle(good: Good, folder: Path) -> list[Truth]:
    return packed(good, folder, RLELossless)


@defect()
def jpeg_2000(good: Good, folder: Path) -> list[Truth]:
    return packed(good, folder, JPEG2000Lossless)


@defect()
def jpeg_ls(good: Good, folder: Path) -> list[Truth]:
    return packed(good, folder, JPEGLSLossless)


@defect()
def big_endian(good: Good, folder: Path) -> list[Truth]:
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(good.sets()):
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        # A data set that does not remember how it was read.
        turned = Dataset(dict(data.items()))
        turned.file_meta = data.file_meta
        turned.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return [good.truth]


def with_syntax(data: bytes, syntax: str) -> bytes:
    """The same file with another transfer syntax, and nothing else changed."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    at = data.index(b"\x02\x00\x10\x00UI")
    old = struct.unpack("<H", data[at + 6 : at + 8])[0]
    group = struct.unpack("<I", data[_META + 8 : _META + 12])[0] + len(value) - old
    head = data[: _META + 8] + struct.pack("<I", group) + data[_META + 12 : at + 6]
    return head + struct.pack("<H", len(value)) + value + data[at + 8 + old :]


def all_with_syntax(good: Good, folder: Path, syntax: str) -> list[Truth]:
    for path in save(good.sets(), folder):
        path.write_bytes(with_syntax(path.read_bytes(), syntax))
    return []


@defect("dicom-transfer-syntax")
def syntax_unknown(good: Good, folder: Path) -> list[Truth]:
    return all_with_syntax(good, folder, "1.2.840.10008.1.2.4.999")


@defect("dicom-transfer-syntax")
def syntax_of_video(good: Good, folder: Path) -> list[Truth]:
    return all_with_syntax(good, folder, "1.2.840.10008.1.2.4.102")


@defect("dicom-transfer-syntax", "dicom-too-large")
def deflated_bomb(good: Good, folder: Path) -> list[Truth]:
    """Half a megabyte that inflates to half a gigabyte."""
    path = save(good.sets(), folder)[3]
    data = with_syntax(path.read_bytes(), "1.2.840.10008.1.2.1.99")
    end = _META + 12 + struct.unpack("<I", data[_META + 8 : _META + 12])[0]
    packer = zlib.compressobj(9, wbits=-15)
    bomb = struct.pack("<HH2sHI", 0x09, 0x1001, b"OB", 0, 2**29)
    packed_bytes = packer.compress(bomb) + b"".join(packer.compress(bytes(2**20)) for _ in range(512)) + packer.flush()
    path.write_bytes(data[:end] + packed_bytes)
    return []


@defect("dicom-too-large")
def rle_bomb(good: Good, folder: Path) -> list[Truth]:
    """Frames of many equal bytes: a megabyte or two that would be gigabytes of pixels."""
    data = good.sets()[0]
    del data.ImagePositionPatient
    data.Rows = data.Columns = 16000
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.NumberOfFrames = 7, 0, 60
    run = b"\x81\x07" * (16000 * 16000 // 128 // 50)
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + run
    data.file_meta.TransferSyntaxUID = RLELossless
    data.PixelData = encapsulate([frame] * 60)
    data["PixelData"].is_undefined_length = True
    save([data], folder)
    return []


@defect()
def rle_longer_than_its_frame(good: Good, folder: Path) -> list[Truth]:
    """A hundred megabytes of equal bytes where a frame has a few kilobytes: what is beyond the frame is left out."""

    def edit(data: Dataset, index: int) -> None:
        data.compress(RLELossless, generate_instance_uid=False)
        if index == 3:
            run = b"\x81\x07" * 2**19
            data.PixelData = encapsulate([struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + run + run])

    change(good, folder, edit)
    array = good.truth.array.copy()
    first = good.sets()[3]
    array[:, :, 3] = 0x0707 * float(first.get("RescaleSlope", 1)) + float(first.get("RescaleIntercept", 0))
    return [replace(good.truth, array=array)]


@defect("dicom-damaged", "dicom-too-large")
def jpeg_2000_of_another_size(good: Good, folder: Path) -> list[Truth]:
    """The code stream says 60000 x 60000 where the header says a small frame."""

    def edit(data: Dataset, index: int) -> None:
        data.compress(JPEG2000Lossless, generate_instance_uid=False)
        if index == 3:
            at = data.PixelData.index(b"\xff\x51")
            pixels = bytearray(data.PixelData)
            for place in (at + 6, at + 10, at + 22, at + 26):  # image and tile size (ISO/IEC 15444-1 A.5.1)
                pixels[place : place + 4] = struct.pack(">I", 60000)
            data.PixelData = bytes(pixels)

    change(good, folder, edit)
    return []


@defect("dicom-damaged")
def compressed_frame_of_noise(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        data.compress(JPEGLSLossless, generate_instance_uid=False)
        if index == 3:
            data.PixelData = encapsulate([b"\xff\xd8" + np.random.default_rng(3).bytes(3000)])

    change(good, folder, edit)
    return []


@defect("dicom-damaged")
def compressed_frame_absent(good: Good, folder: Path) -> list[Truth]:
    def edit(data: Dataset, index: int) -> None:
        data.compress(RLELossless, generate_instance_uid=False)
        if index == 3:
            nothing = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
            data.PixelData = nothing * 2 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    change(good, folder, edit)
    return []


# --- names, places, packages ---


@defect()
def no_preamble(good: Good, folder: Path) -> list[Truth]:
    for path in save(good.sets(), folder):
        path.write_bytes(path.read_bytes()[_META:])
    return [good.truth]


@defect()
def no_extension(good: Good, folder: Path) -> list[Truth]:
    for number, path in enumerate(save(good.sets(), folder)):
        path.rename(folder / f"IM{number}")
    return [good.truth]


@defect()
def odd_names(good: Good, folder: Path) -> list[Truth]:
    for number, path in enumerate(save(good.sets(), folder)):
        path.rename(folder / f"{number} é\n'\"$(x);.png")
    return [good.truth]


@defect()
def many_folders(good: Good, folder: Path) -> list[Truth]:
    for number, path in enumerate(save(good.sets(), folder)):
        place = folder.joinpath(*["d"] * (number * 5), str(number))
        place.mkdir(parents=True)
        path.rename(place / "x.dcm")
    return [good.truth]


@defect()
def folder_named_as_a_file(good: Good, folder: Path) -> list[Truth]:
    save(good.sets(), folder / "scan.dcm")
    (folder / "empty.dcm").mkdir()
    return [good.truth]


@defect()
def other_files_beside(good: Good, folder: Path) -> list[Truth]:
    save(good.sets(), folder)
    (folder / "notes.txt").write_text("no scan")
    (folder / "report.pdf").write_bytes(b"%PDF-1.4\n" + bytes(5000))
    (folder / ".DS_Store").write_bytes(bytes(100))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    return [good.truth]


@defect()
def empty_file(good: Good, folder: Path) -> list[Truth]:
    save(good.sets(), folder)
    (folder / "zero.dcm").touch()
    return [good.truth]


@defect()
def random_bytes(good: Good, folder: Path) -> list[Truth]:
    save(good.sets(), folder)
    (folder / "noise.dcm").write_bytes(np.random.default_rng(1).bytes(20_000))
    return [good.truth]


@defect()
def dicomdir(good: Good, folder: Path) -> list[Truth]:
    """A directory file that names files outside its folder (CVE-2026-32711)."""
    save(good.sets(), folder)
    data, record = good.sets()[0], Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["UP", "UP", "SECRET"]
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(data, keyword)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    data.DirectoryRecordSequence = Sequence([record])
    path = save([renamed(data)], folder, first=90)[0]
    patch(folder, b"UP\\UP\\", b"..\\..\\")
    path.rename(folder / "DICOMDIR")
    return [good.truth]


@defect()
def link_out_of_the_folder(good: Good, folder: Path) -> list[Truth]:
    """Links are not followed out: the slice behind this one is another patient's."""
    save(good.sets(), folder)
    outside = folder.parent.parent / "outside"
    other = good.sets()
    for data in other:
        renamed(data).SeriesInstanceUID = uid("torture", "outside")
    save(other, outside)
    os.symlink(outside, folder / "link")
    os.symlink(outside / "0000.dcm", folder / "link.dcm")
    os.symlink(folder, folder / "loop")
    return [good.truth]


@defect()
def pipe_in_the_folder(good: Good, folder: Path) -> list[Truth]:
    """Opening it would wait for ever."""
    save(good.sets(), folder)
    os.mkfifo(folder / "pipe.dcm")
    return [good.truth]


def zipped(good: Good, folder: Path, prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scans.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(good.files):
            archive.writestr(f"{prefix}a/{number}.dcm", data)
    return path


@defect()
def in_a_zip(good: Good, folder: Path) -> list[Truth]:
    zipped(good, folder)
    return [good.truth]


@defect()
def zip_slip(good: Good, folder: Path) -> list[Truth]:
    """Entries whose names lead outside; the names are not used."""
    zipped(good, folder, "../../outside/")
    return [good.truth]


@defect("dicom-archive", "dicom-too-large")
def zip_bomb(good: Good, folder: Path) -> list[Truth]:
    """A good series beside one entry that unpacks to a gigabyte."""
    path = zipped(good, folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.dcm", "w") as entry:
        for _ in range(1024):
            entry.write(bytes(2**20))
    return []


@defect("dicom-archive")
def zip_cut_off(good: Good, folder: Path) -> list[Truth]:
    path = zipped(good, folder)
    path.write_bytes(path.read_bytes()[:-200])
    return []


@defect("dicom-archive")
def zip_with_a_password(good: Good, folder: Path) -> list[Truth]:
    """The flag of encryption is set in every entry."""
    path = zipped(good, folder)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(mark, at + 4)
    path.write_bytes(bytes(data))
    return []


@defect()
def zip_in_a_zip(good: Good, folder: Path) -> list[Truth]:
    """Unpacked once only; the series beside is read."""
    save(good.sets(), folder)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.txt", "nothing")
    with zipfile.ZipFile(folder / "outer.zip", "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())
    return [good.truth]


@defect()
def huge_private_element(good: Good, folder: Path) -> list[Truth]:
    """Ten megabytes of a maker's own data in one slice, as some scanners write."""

    def edit(data: Dataset, index: int) -> None:
        if index == 3:
            data.private_block(0x0029, "TORTURE", create=True).add_new(0x01, "OB", bytes(10 * 2**20))

    return change(good, folder, edit)


@defect()
def control_characters_in_the_description(good: Good, folder: Path) -> list[Truth]:
    return set_all(good, folder, SeriesDescription="\x1b[31mred\x07")
