"""Elements of a data set as texts and numbers, whatever VR the file claims. Only for child processes (`worker`)."""

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from client.data.dicom.problems import Unreadable

Element = RawDataElement | DataElement
Elements = Mapping[int, Element]

_FORMATS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "OW": "H"}


def elements_of(dataset: Dataset) -> dict[int, Element]:
    """The elements by their tags, not interpreted."""
    return {int(element.tag): element for element in dataset.values()}


def items(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of the sequence at `tag`; empty if there is none."""
    if tag not in dataset:
        return []
    value = dataset[tag].value
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Iterable) else []


def texts(elements: Elements, tag: int) -> list[str]:
    """The values of an element as texts without padding; empty if it is missing or empty."""
    element = elements.get(tag)
    value: Any = None if element is None else element.value
    if value is None:
        return []
    if isinstance(value, bytes):
        parts = value.decode("latin-1").split("\\")
    elif isinstance(value, str) or not isinstance(value, Iterable):
        parts = str(value).split("\\")
    else:
        parts = [str(part) for part in value]
    parts = [part.strip(" \0\t\r\n") for part in parts]
    return parts if any(parts) else []


def text(elements: Elements, tag: int) -> str:
    """The first value of an element, or an empty string."""
    return next(iter(texts(elements, tag)), "")


def numbers(elements: Elements, tag: int, vr: str = "DS") -> list[float]:
    """The values of an element as finite numbers; empty if it is missing or empty.

    Args:
        elements: Of a data set.
        tag: Of the element.
        vr: What it should be, where the file does not say.

    Raises:
        Unreadable: "header": it holds something else.
    """
    element = elements.get(tag)
    if element is None or element.value is None or element.value == b"":
        return []
    claimed = element.VR if element.VR not in (None, "UN") else vr
    try:
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and claimed in _FORMATS:
            values = _unpacked(element.value, _FORMATS[claimed], element.is_little_endian)
        else:
            values = [float(part) for part in texts(elements, tag)]
    except (ValueError, struct.error):
        raise _wrong(tag, "is no number") from None
    if not all(math.isfinite(value) for value in values):
        raise _wrong(tag, "is not finite")
    return values


def number(elements: Elements, tag: int, vr: str = "DS") -> float | None:
    """The first value of an element, or None; raises as `numbers`."""
    return next(iter(numbers(elements, tag, vr)), None)


def whole(elements: Elements, tag: int, default: int, vr: str = "US") -> int:
    """The first value of an element as a whole number.

    Raises:
        Unreadable: "header": it is none.
    """
    value = number(elements, tag, vr)
    if value is None:
        return default
    if value != int(value):
        raise _wrong(tag, "is no whole number")
    return int(value)


def vector(elements: Elements, tag: int, length: int) -> tuple[float, ...] | None:
    """`length` numbers, or None if the element is missing; raises as `numbers`, and for another count."""
    values = numbers(elements, tag)
    if not values:
        return None
    if len(values) != length:
        raise _wrong(tag, f"has {len(values)} numbers instead of {length}")
    return tuple(values)


def _unpacked(value: bytes, letter: str, little: bool) -> list[float]:
    size = struct.calcsize(f"<{letter}")
    return [float(v) for v in struct.unpack(f"{'<' if little else '>'}{len(value) // size}{letter}", value)]


def _wrong(tag: int, what: str) -> Unreadable:
    return Unreadable("header", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {what}")
