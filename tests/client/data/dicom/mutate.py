"""Seeded damage to real DICOM files: tags, value representations, lengths, numbers, bytes, compressed frames."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.data

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"

_VRS = (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"OB", b"OD", b"OF", b"OL",
        b"OV", b"OW", b"PN", b"SH", b"SL", b"SQ", b"SS", b"ST", b"SV", b"TM", b"UC", b"UI", b"UL", b"UN", b"UR", b"US",
        b"UT", b"UV", b"ZZ", b"\0\0")  # fmt: skip
_ELEMENT = re.compile(b"..[\0\1]?.(?:" + b"|".join(_VRS[:34]) + b")", re.DOTALL)
_LENGTHS = (0, 1, 2, 7, 0x7FFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF)
_WORDS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 32, 64, 255, 256, 4095, 4096, 32767, 32768, 65535)
# Elements of group 0028 that say what the pixels are: samples, frames, rows, columns, bits, sign, padding, scale.
_PIXELS = (0x02, 0x04, 0x06, 0x08, 0x10, 0x11, 0x30, 0x100, 0x101, 0x102, 0x103, 0x120, 0x1052, 0x1053)
_NUMBERS = (b"NaN", b"-1", b"1e999", b"0", b"", b"1\\2", b"x", b"99999999999", b"-0.0", b"\0\0")
_FRAME = b"\xfe\xff\x00\xe0"
_META = 132

Rng = np.random.Generator
Mutator = Callable[[bytearray, Rng], None]


def samples() -> list[Path]:
    """pydicom's own test files of grey images, segmentations, contours and others, as far as they are quick to read."""
    colour = ("SC_", "GDCMJ2K")
    return sorted(p for p in SAMPLES.glob("*.dcm") if p.stat().st_size < 60_000 and not p.name.startswith(colour))


def mutated(data: bytes, rng: Rng) -> bytes:
    """`data` with one kind of damage, or with up to three."""
    damaged = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        MUTATORS[int(rng.integers(len(MUTATORS)))](damaged, rng)
    return bytes(damaged)


def _somewhere(data: bytearray, rng: Rng, places: list[int]) -> int:
    return places[int(rng.integers(len(places)))] if places else int(rng.integers(max(len(data) - 16, 1)))


def _elements(data: bytearray) -> list[int]:
    return [m.start() for m in _ELEMENT.finditer(data)]


def _any_bytes(data: bytearray, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 40))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))


def _header_bytes(data: bytearray, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 12))):
        data[int(rng.integers(min(len(data), 1500)))] = int(rng.integers(256))


def _cut(data: bytearray, rng: Rng) -> None:
    del data[int(rng.integers(1, len(data))) :]
    data.extend(b"\0" * (200 - len(data)))


def _doubled(data: bytearray, rng: Rng) -> None:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 400))
    data[start:start] = data[start : start + length]


def _removed(data: bytearray, rng: Rng) -> None:
    start = int(rng.integers(len(data) - 100))
    del data[start : start + int(rng.integers(1, 100))]


def _tag(data: bytearray, rng: Rng) -> None:
    at = _somewhere(data, rng, _elements(data))
    data[at : at + 4] = struct.pack("<HH", *(int(v) for v in rng.choice([0x08, 0x20, 0x28, 0x5200, 0x7FE0, 0xFFFE], 2)))


def _representation(data: bytearray, rng: Rng) -> None:
    at = _somewhere(data, rng, _elements(data))
    data[at + 4 : at + 6] = _VRS[int(rng.integers(len(_VRS)))]


def _length(data: bytearray, rng: Rng) -> None:
    at = _somewhere(data, rng, _elements(data))
    length = _LENGTHS[int(rng.integers(len(_LENGTHS)))]
    if rng.random() < 0.5:
        data[at + 6 : at + 8] = struct.pack("<H", length & 0xFFFF)
    else:
        data[at + 8 : at + 12] = struct.pack("<I", length)


def _pixel_description(data: bytearray, rng: Rng) -> None:
    number = _PIXELS[int(rng.integers(len(_PIXELS)))]
    at = data.find(struct.pack("<HH", 0x28, number))
    if at >= 0:
        data[at + 8 : at + 10] = struct.pack("<H", _WORDS[int(rng.integers(len(_WORDS)))])


def _decimal(data: bytearray, rng: Rng) -> None:
    places = [m.start() for m in re.finditer(rb"(DS|IS)..", data, re.DOTALL)]
    at = _somewhere(data, rng, places)
    length = struct.unpack("<H", bytes(data[at + 2 : at + 4]).ljust(2, b"\0"))[0]
    data[at + 4 : at + 4 + length] = _NUMBERS[int(rng.integers(len(_NUMBERS)))].ljust(length)[:length]


def _pixel_bytes(data: bytearray, rng: Rng) -> None:
    start = max(data.rfind(b"\xe0\x7f\x10\x00"), 0)
    for _ in range(int(rng.integers(1, 60))):
        data[int(rng.integers(start, len(data)))] = int(rng.integers(256))


def _item(data: bytearray, rng: Rng) -> None:
    places = [m.start() for m in re.finditer(re.escape(_FRAME), data)]
    at = _somewhere(data, rng, places)
    data[at + 4 : at + 8] = struct.pack("<I", _LENGTHS[int(rng.integers(len(_LENGTHS)))])


def _marker(data: bytearray, rng: Rng) -> None:
    """A segment of a JPEG stream says another length."""
    places = [m.start() for m in re.finditer(rb"\xff[\x51\x52\x5c\xc0-\xc4\xda\xdb\xf7\xf8]", data)]
    at = _somewhere(data, rng, places)
    data[at + 2 : at + 4] = struct.pack(">H", _WORDS[int(rng.integers(len(_WORDS)))])


def _syntax(data: bytearray, rng: Rng) -> None:
    at = data.find(b"1.2.840.10008.1.2", _META, 600)
    endings = (b"", b".1", b".2", b".5", b".4.50", b".4.57", b".4.70", b".4.80", b".4.90", b".1.99", b".4.201")
    if at >= 0:
        data[at : at + 22] = (b"1.2.840.10008.1.2" + endings[int(rng.integers(len(endings)))]).ljust(22, b"\0")


MUTATORS: tuple[Mutator, ...] = (
    _any_bytes, _header_bytes, _cut, _doubled, _removed, _tag, _representation, _length, _pixel_description, _decimal,
    _pixel_bytes, _item, _marker, _syntax,
)  # fmt: skip
