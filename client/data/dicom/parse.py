"""A DICOM file as its elements, up to the pixels. Only for child processes (`worker`)."""

import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from client.data.dicom import codecs, limits
from client.data.dicom.problems import Unreadable

PIXELS = 0x7FE00010
FLOATS = 0x7FE00008
DOUBLES = 0x7FE00009
UNDEFINED = 0xFFFFFFFF

_TRANSFER_SYNTAX = 0x0010
# VRs whose length takes four bytes (PS3.5 7.1.2).
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
          b"SS", b"ST", b"TM", b"UI", b"UL", b"US")  # fmt: skip


@dataclass
class Parsed:
    """A file whose elements before the pixels were read; closed by its `with`.

    Attributes:
        stream: The open file.
        size: Of the file, in bytes.
        syntax: Transfer syntax UID.
        dataset: The elements before the pixels, most of them not yet interpreted.
        tag: Of the pixel element: `PIXELS`, `FLOATS`, `DOUBLES`, or 0 if the file has none.
        start: Where the pixels begin in the file.
        length: What the pixel element says of its length, or UNDEFINED if the pixels are encapsulated.
        words: The pixels are stored as 16-bit words (OW), whatever their own size.
    """

    stream: BinaryIO
    size: int
    syntax: str
    dataset: Dataset
    tag: int = 0
    start: int = 0
    length: int = 0
    words: bool = True

    @property
    def little(self) -> bool:
        """Whether numbers are stored with the least byte first."""
        return self.syntax != codecs.BIG_ENDIAN

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stream.close()


def parse(path: Path) -> Parsed:
    """The elements of the file up to its pixels.

    Nothing is unpacked: deflated syntaxes are refused by their name. Files without the 128-byte preamble are read if
    they begin with an element of group 0002 or 0008.

    Raises:
        Unreadable: "not-dicom", "transfer-syntax" or "damaged".
    """
    stream = path.open("rb")
    try:
        size = stream.seek(0, 2)
        syntax = _syntax(stream, size)
        if (known := codecs.SYNTAXES.get(syntax)) and known.refused:
            codecs.check_readable(syntax)
        dataset = read_dataset(
            stream,
            syntax == codecs.IMPLICIT,
            syntax != codecs.BIG_ENDIAN,
            stop_when=_at_pixels,
            defer_size=limits.HEADER,
        )
        _check_complete(dataset, size)
        parsed = Parsed(stream, size, syntax, dataset)
        _find_pixels(parsed)
    except BaseException:
        stream.close()
        raise
    return parsed


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return int.__ge__(tag, FLOATS)  # pydicom's own comparison of tags is slow, and is called for each element


def _syntax(stream: BinaryIO, size: int) -> str:
    """The transfer syntax that the file says, or that its first element shows; leaves the stream at the data set."""
    stream.seek(0)
    head = stream.read(132)
    if not may_be_dicom(head):
        raise Unreadable("not-dicom")
    start = 132 if head[128:] == b"DICM" else 0
    syntax = ""
    at = start
    while True:
        stream.seek(at)
        element = stream.read(12)
        if len(element) < 8:
            raise Unreadable("damaged", "ends within its first elements")
        group, number, vr, length = struct.unpack("<HH2sH", element[:8])
        if group != 0x0002:
            break
        at += 8
        if vr in _LONG:
            length = struct.unpack("<L", element[8:12].ljust(4, b"\0"))[0]
            at += 4
        elif vr not in _SHORT:
            length = struct.unpack("<L", element[4:8])[0]
        if at + length > size:
            raise Unreadable("damaged", "ends within its first elements")
        if number == _TRANSFER_SYNTAX:
            stream.seek(at)
            syntax = stream.read(min(length, 128)).decode("ascii", "replace").strip(" \0")
        at += length
    stream.seek(at)
    return syntax or (codecs.EXPLICIT if element[4:6] in _LONG + _SHORT else codecs.IMPLICIT)


def may_be_dicom(head: bytes) -> bool:
    """Whether a file that begins with these 132 bytes can be DICOM, with or without the preamble."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    group, number, vr, _ = struct.unpack("<HH2sH", head[:8])
    length = struct.unpack("<L", head[4:8])[0]
    return group in (0x0002, 0x0008) and number <= 0x0100 and (vr in _LONG + _SHORT or length <= 128)


def _check_complete(dataset: Dataset, size: int) -> None:
    """Raise if the file ends within an element: pydicom takes what there is and says nothing."""
    if len(dataset) > limits.ELEMENTS:
        raise Unreadable("too-large", f"more than {limits.ELEMENTS} elements")
    for element in dataset.values():
        if not isinstance(element, RawDataElement) or element.length == UNDEFINED:
            continue
        if element.value_tell + element.length > size:
            raise Unreadable("damaged", "ends within its header")
        if element.value is None and element.length > limits.HEADER:
            raise Unreadable("too-large", f"an element of {element.length} bytes before the pixels")


def _find_pixels(parsed: Parsed) -> None:
    """Take the stream, which stands before the pixel element if there is one, to the pixels."""
    stream = parsed.stream
    order = "<" if parsed.little else ">"
    element = stream.read(12)
    if len(element) < 8:
        return
    group, number, vr = struct.unpack(f"{order}HH2s", element[:6])
    tag = group << 16 | number
    if tag not in (PIXELS, FLOATS, DOUBLES):
        return
    parsed.tag = tag
    # What pydicom has found the elements to be, which is not always what the file says.
    implicit = bool(parsed.dataset.original_encoding[0])
    if vr in _LONG and not implicit:
        parsed.length = struct.unpack(f"{order}L", element[8:12])[0] if len(element) == 12 else 0
        parsed.start = stream.tell()
        parsed.words = vr == b"OW"
    else:
        parsed.length = struct.unpack(f"{order}L", element[4:8])[0]
        parsed.start = stream.tell() - len(element) + 8
    stream.seek(parsed.start)
