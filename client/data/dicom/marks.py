"""What may tell the volumes of one series apart, taken from public and vendors' elements. For child processes.

Private elements as documented in the vendors' conformance statements and used by dcm2niix (Li et al. 2016,
doi:10.1016/j.jneumeth.2016.03.001): Siemens (0019,xx0C) and (0019,xx0E), GE (0043,xx39) and (0019,xxBB-BD), Philips
(2001,xx03), United Imaging (0065,xx09).
"""

import datetime
import re
from collections.abc import Callable

from client.data.dicom.elements import Element, Elements, number, numbers, text, texts
from client.data.dicom.problems import Unreadable
from client.data.dicom.records import Mark

_Taker = Callable[[Elements], Mark | None]

# GE writes the b-value plus a flag of 10^9.
_GE_FLAG = 1_000_000_000
_SEQUENCE_NAME = re.compile(r"ep_b(\d+)")


def marks_of(elements: Elements) -> dict[str, Mark]:
    """The marks that the elements of a slice carry, by the keys of `MARKS`; an element that is no number is none."""
    found: dict[str, Mark] = {}
    for name, take in MARKS.items():
        try:
            value = take(elements)
        except Unreadable:
            continue
        if value is not None and value != "":
            found[name] = value
    return found


def _number(*tags: int, vr: str = "DS") -> _Taker:
    def take(elements: Elements) -> Mark | None:
        return next((v for tag in tags if (v := number(elements, tag, vr)) is not None), None)

    return take


def _text(*tags: int) -> _Taker:
    def take(elements: Elements) -> Mark | None:
        return next((v for tag in tags if (v := "\\".join(texts(elements, tag)))), None)

    return take


def private(elements: Elements, group: int, creator: str, byte: int) -> Element | None:
    """The private element (group,xx`byte`) of the block that `creator` has reserved."""
    for block in range(0x10, 0x20):
        if text(elements, group << 16 | block) == creator:
            return elements.get(group << 16 | block << 8 | byte)
    return None


def _private_numbers(elements: Elements, group: int, creator: str, byte: int, vr: str) -> list[float]:
    element = private(elements, group, creator, byte)
    return [] if element is None else numbers({0: element}, 0, vr)


def _b_value(elements: Elements) -> Mark | None:
    public = number(elements, 0x00189087, "FD")
    if public is not None:
        return public
    for group, creator, byte, vr in (
        (0x0019, "SIEMENS MR HEADER", 0x0C, "IS"),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL"),
        (0x0065, "Image Private Header", 0x09, "FD"),
    ):
        if values := _private_numbers(elements, group, creator, byte, vr):
            return values[0]
    if values := _private_numbers(elements, 0x0043, "GEMS_PARM_01", 0x39, "IS"):
        return values[0] % _GE_FLAG
    match = _SEQUENCE_NAME.search(text(elements, 0x00180024))
    return float(match[1]) if match else None


def _direction(elements: Elements) -> Mark | None:
    values = numbers(elements, 0x00189089, "FD")
    values = values or _private_numbers(elements, 0x0019, "SIEMENS MR HEADER", 0x0E, "FD")
    if not values:
        parts = [_private_numbers(elements, 0x0019, "GEMS_ACQU_01", byte, "DS") for byte in (0xBB, 0xBC, 0xBD)]
        values = [part[0] for part in parts if part]
    return " ".join(f"{v:.4f}" for v in values) if any(values) else None


def _moment(date: int, *tags: int) -> _Taker:
    """Seconds since the year 1 of the first of `tags`; times (TM) take their date from `date`."""

    def take(elements: Elements) -> Mark | None:
        for tag in tags:
            value = text(elements, tag)
            if value:
                return _seconds(value if tag in _DATE_TIMES else (text(elements, date) or "20000101") + value)
        return None

    return take


_DATE_TIMES = (0x0008002A, 0x00189074, 0x00189151)


def _seconds(value: str) -> float | None:
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)?(\d\d)?(\d\d)?(\.\d+)?(?:[+-]\d{4})?", value)
    if not match:
        return None
    year, month, day, hours, minutes, seconds = (int(part or 0) for part in match.groups()[:6])
    try:
        days = datetime.date(max(year, 1), max(month, 1), max(day, 1)).toordinal()
    except ValueError:
        days = 0  # A date that does not exist; the time still orders slices of one day.
    return days * 86400.0 + hours * 3600 + minutes * 60 + seconds + float(match[7] or 0)


# Name -> how it is taken. The order and what each means for a series stand in `volumes`.
MARKS: dict[str, _Taker] = {
    "type": _text(0x00080008),
    "frame_type": _text(0x00089007),
    "component": _text(0x00089208),
    "stack": _text(0x00209056),
    "echo": _number(0x00180086, vr="IS"),
    "te": _number(0x00189082, 0x00180081, vr="FD"),
    "b": _b_value,
    "direction": _direction,
    "ti": _number(0x00189079, 0x00180082, vr="FD"),
    "flip": _number(0x00181314),
    "time": _number(0x00200100, 0x00209128, vr="IS"),
    "acquisition": _number(0x00200012, 0x00209156, vr="IS"),
    "kv": _number(0x00180060),
    "kernel": _text(0x00181210, 0x00189315),
    "trigger": _number(0x00181060, 0x00209153),
    "reference_time": _number(0x00541300),
    "acquired": _moment(0x00080022, 0x00189151, 0x00189074, 0x0008002A, 0x00080032),
    "content": _moment(0x00080023, 0x00080033),
    "number": _number(0x00200013, vr="IS"),
}
