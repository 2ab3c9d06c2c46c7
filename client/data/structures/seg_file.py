"""DICOM segmentations as they are stored (PS3.3 A.51, C.8.20). Only for child processes (`client.data.dicom.worker`).

What is in doubt is refused: a frame of a segment that the file does not describe, fewer pixels than it promises.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from client.data.dicom import codecs, limits
from client.data.dicom.parse import PIXELS, Parsed
from client.data.dicom.problems import Unreadable
from client.data.structures.elements import code_in, first, number, numbers, sequence, text

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"

FRAMES = 100_000  # a hundred structures of a long CT, one frame each and slice
PACKED = 2 * 2**30  # bytes of all frames, one bit per pixel and segment or the label map itself


def seg(parsed: Parsed, into: Path) -> dict[str, Any]:
    """Describe a segmentation and write its frames to the .npy file `into`.

    Returns:
        JSON: `object` ("seg"), `kind` ("BINARY", "FRACTIONAL", "LABELMAP"), `rows`, `columns`, `frame_of_reference`,
        `references` (SOP instance UIDs that the file names), `segments` and `frames`. Each frame has its `segment`
        (null in a label map), `position`, `orientation` and `spacing` in LPS mm (null where unknown), `depth` (distance
        of planes, or null), `thickness` (or null), `sources` (list of [index in `references`, frame number or null])
        and `row`: where it stands in the array, or −1 if it is empty. The array is `(N, ceil(rows * columns / 8))`
        uint8, bits packed with the first pixel in the lowest bit; for label maps `(N, rows * columns)` uint8 or uint16.

    Raises:
        Unreadable: Damaged, too large, or of a kind that is not read.
    """
    ds = parsed.dataset
    kind = _kind(ds)
    rows, columns = number(ds, "Rows"), number(ds, "Columns")
    count = number(ds, "NumberOfFrames", 1)
    _check_size(kind, rows, columns, count)
    segments = _segments(ds)
    references = _References(ds)
    frames = _frames(ds, count, kind, {s["number"] for s in segments}, references)
    _write(parsed, kind, frames, into)
    return {
        "object": "seg", "kind": kind, "rows": rows, "columns": columns,
        "segments": _without_background(ds, kind, segments), "frames": frames,
        "frame_of_reference": text(ds, "FrameOfReferenceUID"), "references": references.uids,
    }  # fmt: skip


def _kind(ds: Dataset) -> str:
    kind = text(ds, "SegmentationType").upper()
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or (kind == "LABELMAP") != (
        text(ds, "SOPClassUID") == LABEL_MAP
    ):
        raise Unreadable("header", "segmentation type")
    return kind


def _check_size(kind: str, rows: int, columns: int, frames: int) -> None:
    if min(rows, columns, frames) < 1:
        raise Unreadable("header", "no pixels")
    size = rows * columns * frames // (1 if kind == "LABELMAP" else 8)
    if max(rows, columns) > limits.SIDE or frames > FRAMES or size > PACKED:
        raise Unreadable("too-large", f"{rows} × {columns} × {frames}")


def _segments(ds: Dataset) -> list[dict[str, Any]]:
    found = [
        {
            "number": number(item, "SegmentNumber"),
            "name": text(item, "SegmentLabel"),
            "code": code_in(item, "SegmentedPropertyTypeCodeSequence"),
            "category": code_in(item, "SegmentedPropertyCategoryCodeSequence"),
        }
        for item in sequence(ds, "SegmentSequence")
    ]
    if not found or len({s["number"] for s in found}) < len(found):
        raise Unreadable("header", "segments")
    return found


def _without_background(ds: Dataset, kind: str, segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A label map may describe its background as a segment: number 0, or the pixel padding value."""
    if kind != "LABELMAP":
        return segments
    return [s for s in segments if s["number"] not in (0, number(ds, "PixelPaddingValue", 0))]


class _References:
    """SOP instance UIDs, each once, by the order of their first mention."""

    def __init__(self, ds: Dataset) -> None:
        self._index: dict[str, int] = {}
        for series in sequence(ds, "ReferencedSeriesSequence"):
            for item in sequence(series, "ReferencedInstanceSequence"):
                self.index(text(item, "ReferencedSOPInstanceUID"))

    def index(self, uid: str) -> int:
        return self._index.setdefault(uid, len(self._index))

    @property
    def uids(self) -> list[str]:
        return list(self._index)


def _frames(ds: Dataset, count: int, kind: str, known: set[int], references: _References) -> list[dict[str, Any]]:
    groups = sequence(ds, "PerFrameFunctionalGroupsSequence")
    if len(groups) != count:
        raise Unreadable("header", f"{len(groups)} descriptions of {count} frames")
    shared = first(ds, "SharedFunctionalGroupsSequence")
    frames = [_frame(group, shared, references) for group in groups]
    for frame in frames:
        if kind == "LABELMAP":
            frame["segment"] = None
        elif frame["segment"] not in known:
            raise Unreadable("header", "a frame of a segment that is not described")
    return frames


def _frame(group: Dataset, shared: Dataset, references: _References) -> dict[str, Any]:
    def functional(name: str) -> Dataset:
        return first(group, name) if name in group else first(shared, name)

    measures = functional("PixelMeasuresSequence")
    depth = numbers(measures, "SpacingBetweenSlices", 1)
    sources = [
        [references.index(text(item, "ReferencedSOPInstanceUID")), frame]
        for derivation in sequence(group, "DerivationImageSequence") or sequence(shared, "DerivationImageSequence")
        for item in sequence(derivation, "SourceImageSequence")
        for frame in (numbers(item, "ReferencedFrameNumber") or (None,))
    ]
    return {
        "segment": number(functional("SegmentIdentificationSequence"), "ReferencedSegmentNumber", 0),
        "position": numbers(functional("PlanePositionSequence"), "ImagePositionPatient", 3),
        "orientation": numbers(functional("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        "spacing": numbers(measures, "PixelSpacing", 2),
        "depth": depth[0] if depth and depth[0] > 0 else None,
        "thickness": (numbers(measures, "SliceThickness", 1) or (None,))[0],
        "sources": sources,
    }


def _write(parsed: Parsed, kind: str, frames: list[dict[str, Any]], into: Path) -> None:
    """The frames that are not empty; sets `row` of all."""
    ds = parsed.dataset
    half = max(number(ds, "MaximumFractionalValue", 255), 1) / 2 if kind == "FRACTIONAL" else 0.5
    background = number(ds, "PixelPaddingValue", 0) if kind == "LABELMAP" else 0
    size = number(ds, "Rows") * number(ds, "Columns")
    wide = number(ds, "BitsAllocated") == 16
    dtype, width = (np.dtype("<u2" if wide else "u1"), size) if kind == "LABELMAP" else (np.dtype("u1"), -(-size // 8))
    kept = 0
    with into.open("wb") as file:
        _header(file, dtype, (len(frames), width))
        for frame, pixels in zip(frames, _pixels(parsed, len(frames)), strict=True):
            mask = pixels != background if kind == "LABELMAP" else pixels >= half
            frame["row"] = kept if mask.any() else -1
            if frame["row"] < 0:
                continue
            kept += 1
            filled = np.where(mask, pixels, 0) if kind == "LABELMAP" else np.packbits(mask, bitorder="little")
            file.write(filled.astype(dtype, copy=False).tobytes())
        file.seek(0)
        _header(file, dtype, (kept, width))


def _header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
    """Of a .npy file; NumPy leaves room in it for the first axis to grow, so that it can be written again."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )


def _pixels(parsed: Parsed, count: int) -> Iterator[NDArray[Any]]:
    """Each frame as `(rows * columns,)` uint8 or uint16."""
    if parsed.tag != PIXELS:
        raise Unreadable("damaged", "no pixels")
    ds = parsed.dataset
    bits = number(ds, "BitsAllocated")
    if bits not in (1, 8, 16) or number(ds, "SamplesPerPixel", 1) != 1 or number(ds, "PixelRepresentation", 0) != 0:
        raise Unreadable("header", "pixels of a kind that no segmentation has")
    size = number(ds, "Rows") * number(ds, "Columns")
    if parsed.syntax not in codecs.NATIVE:
        yield from _decoded(parsed, count, bits)
    elif bits == 1:
        yield from _bits(parsed, count, size)
    else:
        dtype = np.dtype(np.uint8 if bits == 8 else ("<u2" if parsed.little else ">u2"))
        for _ in range(count):
            raw = np.frombuffer(_read(parsed, size * dtype.itemsize), dtype)
            yield raw.astype(dtype.newbyteorder("="), copy=False)


def _bits(parsed: Parsed, count: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """Single bits: frames follow each other without a gap, so that one may begin within a byte (PS3.5 8.1.1)."""
    left = np.zeros(0, dtype=np.uint8)
    for _ in range(count):
        raw = np.frombuffer(_read(parsed, -(-(size - len(left)) // 8)), np.uint8)
        bits = np.concatenate([left, np.unpackbits(raw, bitorder="little")])
        yield bits[:size]
        left = bits[size:]


def _read(parsed: Parsed, size: int) -> bytes:
    data = parsed.stream.read(size)
    if len(data) < size or parsed.stream.tell() > parsed.start + parsed.length:
        raise Unreadable("damaged", "ends within its pixels")
    return data


def _decoded(parsed: Parsed, count: int, bits: int) -> Iterator[NDArray[Any]]:
    codecs.check_readable(parsed.syntax)
    ds = parsed.dataset
    frames = get_decoder(UID(parsed.syntax)).iter_array(
        parsed.stream, raw=True, rows=number(ds, "Rows"), columns=number(ds, "Columns"), number_of_frames=count,
        samples_per_pixel=1, photometric_interpretation="MONOCHROME2", bits_allocated=bits,
        bits_stored=number(ds, "BitsStored", bits), pixel_keyword="PixelData", pixel_representation=0,
    )  # fmt: skip
    done = 0
    for frame, _ in frames:
        done += 1
        yield frame.reshape(-1)
    if done < count:
        raise Unreadable("damaged", f"{done} of {count} frames")
