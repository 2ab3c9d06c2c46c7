"""The task `headers`: what a DICOM file is and how it lies in the patient, without its pixels. For child processes."""

import errno
import hashlib
import re
from collections import ChainMap
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from client.data.dicom import codecs, limits, parse
from client.data.dicom.elements import Elements, elements_of, items, number, numbers, text, texts, vector, whole
from client.data.dicom.facts import decoded, facts_of
from client.data.dicom.marks import marks_of
from client.data.dicom.problems import Unreadable
from client.data.dicom.records import Frame, Header, Refusal

_UID = re.compile(r"[0-9.]{1,64}")
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
# Functional groups that say where a frame lies, what its values are and what tells it from others.
_GROUPS = {
    0x00209113, 0x00209116, 0x00289110, 0x00209111, 0x00289145, 0x00289132, 0x00189226, 0x00189329, 0x00189751,
    0x00189114, 0x00189117, 0x00189076, 0x00189112, 0x00189115, 0x00189118, 0x00209310, 0x00189304, 0x00189314,
    0x00189325, 0x00189504, 0x00409092, 0x00209170, 0x00209171, 0x00189477, 0x00209253,
}  # fmt: skip
_MAX_REFERENCES = 100_000


def headers(paths: list[str]) -> dict[str, Any]:
    """The `records.Header` or `records.Refusal` of each file, as JSON, in the order of `paths`."""
    return {"headers": [_answer(Path(path)) for path in paths]}


def _answer(path: Path) -> dict[str, Any]:
    try:
        return header_of(path).model_dump(exclude_defaults=True)
    except Unreadable as error:
        return Refusal(reason=error.reason, what=error.what).model_dump()
    except MemoryError:
        return Refusal(reason="too-large").model_dump()
    except OSError as error:
        if error.errno == errno.EINVAL:
            return Refusal(reason="damaged", what="a place that the file does not have").model_dump()
        return Refusal(reason="missing", what=error.strerror or "").model_dump()
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes a library raise
        return Refusal(reason="damaged", what=type(error).__name__).model_dump()


def header_of(path: Path) -> Header:
    """The header of one file.

    Raises:
        Unreadable: It is no DICOM file, damaged, of absurd size, or its header cannot be right.
    """
    with parse.parse(path) as parsed:
        dataset, elements = parsed.dataset, elements_of(parsed.dataset)
        sop_class = _uid(elements, 0x00080016, needed=True)
        kind = "seg" if sop_class in _SEGMENTATIONS else "rtstruct" if sop_class == _CONTOURS else "other"
        common: dict[str, Any] = {
            "kind": kind,
            "syntax": parsed.syntax,
            "sop_class": sop_class,
            "instance": _uid(elements, 0x00080018, needed=True),
            "series": _uid(elements, 0x0020000E, needed=True),
            "study": _uid(elements, 0x0020000D),
            "frame_of_reference": _uid(elements, 0x00200052),
            "modality": text(elements, 0x00080060)[:16],
            "description": decoded(dataset, 0x0008103E),
            "patient": _patient(elements),
            "facts": facts_of(dataset, elements),
        }
        if kind == "other" and _is_image(parsed, elements):
            return Header(**{**common, "kind": "image"}, **image_of(parsed, elements))
        return Header(**{**common, **_references(dataset, common["frame_of_reference"])})


def _is_image(parsed: parse.Parsed, elements: Elements) -> bool:
    if parsed.tag:
        return True
    if not numbers(elements, 0x00280010, "US"):
        return False
    raise Unreadable("damaged", "rows and columns, but no pixels: the file is cut off")


def _uid(elements: Elements, tag: int, needed: bool = False) -> str:
    value = text(elements, tag)
    if not value and not needed:
        return ""
    if not value:
        raise Unreadable("damaged", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing")
    if not _UID.fullmatch(value):
        raise Unreadable("header", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is no UID")
    return value


def _patient(elements: Elements) -> str:
    known = text(elements, 0x00100020)
    return hashlib.sha256(f"{known}\x1f{text(elements, 0x00100021)}".encode()).hexdigest()[:12] if known else ""


def image_of(parsed: parse.Parsed, elements: Elements, marks: bool = True) -> dict[str, Any]:
    """What the header says of the pixels, checked against the file: fields of `records.Header`.

    Args:
        parsed: The file.
        elements: Its elements.
        marks: Whether the frames' marks are wanted.

    Raises:
        Unreadable: "header" or "too-large".
    """
    rows, columns = whole(elements, 0x00280010, 0), whole(elements, 0x00280011, 0)
    frames = whole(elements, 0x00280008, 1, "IS")
    samples = whole(elements, 0x00280002, 1)
    allocated = whole(elements, 0x00280100, 16)
    stored = whole(elements, 0x00280101, allocated)
    high = whole(elements, 0x00280102, stored - 1)
    _check_size(rows, columns, frames, samples)
    floating = parsed.tag != parse.PIXELS
    if allocated not in (1, 8, 16, 32, 64) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise Unreadable("header", f"{allocated} bits allocated, {stored} stored, {high} the highest")
    need = rows * columns * samples * frames * allocated // 8
    there = parsed.size - parsed.start
    short = parsed.syntax in codecs.NATIVE and there < need
    signed = whole(elements, 0x00280103, 0) == 1
    return {
        "rows": rows,
        "columns": columns,
        "samples": samples,
        "photometric": text(elements, 0x00280004)[:32],
        "allocated": allocated,
        "stored": stored,
        "high": high,
        "signed": signed,
        "floating": floating,
        "padding": _padding(elements, stored, signed),
        "lut": bool(items(parsed.dataset, 0x00283000)),
        "problem": f"{there} bytes of pixels, {need} expected: the file is cut off" if short else "",
        "frames": tuple(_frames(parsed.dataset, elements, frames, marks)),
    }


def _check_size(rows: int, columns: int, frames: int, samples: int) -> None:
    if rows < 1 or columns < 1 or frames < 1 or samples not in (1, 3, 4):
        raise Unreadable("header", f"{rows} rows, {columns} columns, {frames} frames, {samples} samples")
    size = f"{rows} x {columns} pixels x {samples} samples x {frames} frames"
    too_many = rows * columns * samples > limits.FRAME_VALUES or rows * columns * samples * frames > limits.VOXELS
    if max(rows, columns) > limits.SIDE or frames > limits.FRAMES or too_many:
        raise Unreadable("too-large", size)


def _padding(elements: Elements, stored: int, signed: bool) -> tuple[float, float] | None:
    """The padding values, read as the pixels are: some files store them with the VR of the other sign."""
    ends = [number(elements, tag, "SS" if signed else "US") for tag in (0x00280120, 0x00280121)]
    if ends[0] is None:
        return None
    values = [_wrapped(int(end), stored, signed) for end in ends if end is not None]
    return min(values), max(values)


def _wrapped(value: int, stored: int, signed: bool) -> int:
    value %= 1 << stored
    return value - (1 << stored) if signed and value >= 1 << (stored - 1) else value


def _frames(dataset: Dataset, elements: Elements, count: int, marks: bool) -> list[Frame]:
    shared = _flat(next(iter(items(dataset, _SHARED)), None))
    each = items(dataset, _PER_FRAME)
    if each and len(each) != count:
        raise Unreadable("header", f"{count} frames, {len(each)} functional groups")
    if each:
        return [_frame(ChainMap(_flat(item), shared, elements), marks) for item in each]  # type: ignore[arg-type]
    if count > 1:
        # Where frames follow one another without a word of where they lie, the file is a film.
        return [Frame(marks={"frame": float(n)}) for n in range(count)]
    return [_frame(ChainMap(shared, elements) if shared else elements, marks)]  # type: ignore[arg-type]


def _flat(item: Dataset | None) -> dict[int, Any]:
    """The elements of the functional groups in `item`, as if they stood in the data set itself."""
    found: dict[int, Any] = {}
    if item is None:
        return found
    for tag, element in elements_of(item).items():
        if tag in _GROUPS:
            for group in items(item, tag)[:1]:
                found |= _flat(group)
        else:
            found[tag] = element
    return found


def _frame(elements: Elements, marks: bool) -> Frame:
    slope = number(elements, 0x00281053)
    if slope == 0:
        raise Unreadable("header", "the rescale slope is 0")
    position, orientation = vector(elements, 0x00200032, 3), vector(elements, 0x00200037, 6)
    return Frame(
        position=position,
        orientation=orientation,
        spacing=_spacing(elements),
        thickness=_length(elements, 0x00180050),
        gap=_length(elements, 0x00180088),
        slope=1.0 if slope is None else slope,
        intercept=number(elements, 0x00281052) or 0.0,
        marks=marks_of(elements) if marks else {},
    )


def _spacing(elements: Elements) -> tuple[float, float] | None:
    """Of pixels in the patient; of projection pictures, where nothing else is known, of those in the detector."""
    for tag in (0x00280030, 0x00181164):
        values = vector(elements, tag, 2)
        if values is None:
            continue
        low, high = limits.SPACING
        if not all(low <= value <= high for value in values):
            raise Unreadable("header", f"a pixel size of {values[0]:g} x {values[1]:g} mm")
        return values[0], values[1]
    return None


def _length(elements: Elements, tag: int) -> float | None:
    """Millimetres; what is not positive says nothing. Some scanners give the gap a sign."""
    value = number(elements, tag)
    return abs(value) if value else None


def _references(dataset: Dataset, frame_of_reference: str) -> dict[str, Any]:
    """The series and instances to which a segmentation, contours or another object refers."""
    series: dict[str, None] = {}
    instances: dict[str, None] = {}
    frames: dict[str, None] = {}
    _walk(dataset, 0, series, instances, frames)
    return {
        "frame_of_reference": frame_of_reference or next(iter(frames), ""),
        "referenced_series": tuple(series),
        "referenced_instances": tuple(instances),
    }


def _walk(dataset: Dataset, depth: int, series: dict[str, None], instances: dict[str, None],
          frames: dict[str, None]) -> None:  # fmt: skip
    if depth > limits.DEPTH:
        raise Unreadable("header", f"sequences nested more than {limits.DEPTH} deep")
    elements = elements_of(dataset)
    if depth:
        for tag, found in ((0x0020000E, series), (0x00081155, instances), (0x00200052, frames), (0x30060024, frames)):
            for value in texts(elements, tag):
                if _UID.fullmatch(value) and len(found) < _MAX_REFERENCES:
                    found[value] = None
    for tag, element in elements.items():
        sequence = element.VR == "SQ" or tag in _SEQUENCES
        if sequence:
            for item in items(dataset, tag):
                _walk(item, depth + 1, series, instances, frames)


# In implicit VR the file does not say that these are sequences, and they are looked into without interpreting the rest.
_SEQUENCES = {
    0x00081115, 0x0008114A, 0x00081199, 0x00081140, 0x00082112, 0x00089124, 0x30060010, 0x30060012, 0x30060014,
    0x30060016, 0x30060039, 0x30060040, 0x52009229, 0x52009230, 0x00081200,
}  # fmt: skip
