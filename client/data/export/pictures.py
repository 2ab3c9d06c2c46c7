"""PNG, JPEG and TIFF without anything but the picture: no texts, dates, places, thumbnails or colour profiles."""

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from client.data.readers import image2d
from common.errors import DataError

_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of the PNG specification (3rd edition) that say how the pixels are to be read.
_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"IDAT", b"IEND")
# Markers of ITU-T T.81 that hold tables, frames and restarts; APPn and COM are not among them.
_TABLES = {0xDB, 0xC4, 0xCC, 0xDD, 0xDC, *(m for m in range(0xC0, 0xD0) if m not in (0xC4, 0xC8, 0xCC))}
_SCAN, _END, _ADOBE, _JFIF = 0xDA, 0xD9, 0xEE, 0xE0


def clean_png(source: Path, target: Path, label: bool) -> None:
    """The same compressed pixels; of EXIF only the orientation. Raises DataError for a damaged file."""
    data = source.read_bytes()
    if not data.startswith(_PNG):
        raise _damaged(source)
    kept: list[tuple[bytes, bytes]] = []
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        place += 12 + length
        if kind in _CHUNKS:
            kept.append((kind, body))
        if kind == b"IEND":
            break
    turned = _orientation(source)
    pixels = b"".join(body for kind, body in kept if kind == b"IDAT")
    before = [(kind, body) for kind, body in kept if kind not in (b"IDAT", b"IEND")]
    chunks = [*before, *([(b"eXIf", turned)] if turned else []), (b"IDAT", _stream(source, pixels)), (b"IEND", b"")]
    target.write_bytes(_PNG + b"".join(_chunk(kind, body) for kind, body in chunks))


def clean_jpeg(source: Path, target: Path, label: bool) -> None:
    """The same coefficients; of EXIF only the orientation. Raises DataError for a damaged file."""
    data = source.read_bytes()
    turned = _orientation(source)
    parts = [b"\xff\xd8"]
    if turned:
        body = b"Exif\0\0" + turned
        parts.append(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
    place = 2
    try:
        while data[place + 1] != _END:
            place = _segment(data, place, parts)
    except IndexError:
        raise _damaged(source) from None
    target.write_bytes(b"".join([*parts, b"\xff\xd9"]))


def clean_tiff(source: Path, target: Path, label: bool) -> None:
    """The picture as our reader sees it, written anew; raises DataError as the reader does."""
    array = image2d.read(source, label).array
    colour = array.shape[0] == 3
    tifffile.imwrite(
        target, np.moveaxis(array, 0, -1) if colour else array[0], photometric="rgb" if colour else "minisblack",
        metadata=None, software=False, datetime=False, description=None,
    )  # fmt: skip


def _segment(data: bytes, place: int, parts: list[bytes]) -> int:
    """Copy or skip the segment at `place`; the place of the next."""
    if data[place] != 0xFF:
        raise IndexError(place)
    marker = data[place + 1]
    if marker == 0xFF:
        return place + 1
    end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    body = data[place:end]
    if marker == _SCAN:
        end = _scan_end(data, end)
        parts.append(data[place:end])
    elif marker in _TABLES or (marker == _ADOBE and body[4:9] == b"Adobe" and len(body) == 16):
        parts.append(body)
    elif marker == _JFIF and body[4:9] == b"JFIF\0" and len(body) >= 18:
        # Version, density; the thumbnail behind them is left out.
        parts.append(b"\xff\xe0\x00\x10" + body[4:16] + b"\0\0")
    return end


def _scan_end(data: bytes, place: int) -> int:
    """Where the entropy-coded bytes from `place` on end: at a marker that is no restart and no stuffed zero."""
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise IndexError(place)
        if data[place + 1] != 0 and not 0xD0 <= data[place + 1] <= 0xD7:
            return place
        place += 2


def _stream(source: Path, pixels: bytes) -> bytes:
    """The zlib stream without bytes behind its end."""
    stream = zlib.decompressobj()
    try:
        size = len(pixels)
        left = pixels
        while left and not stream.eof:
            stream.decompress(left, 2**24)
            left = stream.unconsumed_tail
    except zlib.error:
        raise _damaged(source) from None
    if not stream.eof:
        raise _damaged(source)
    return pixels[: size - len(stream.unused_data)]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _orientation(source: Path) -> bytes:
    """EXIF data with the orientation alone; empty if the picture is not turned."""
    try:
        with Image.open(source) as image:
            value = image.getexif().get(_ORIENTATION)
    except (OSError, ValueError, SyntaxError):
        raise _damaged(source) from None
    if value not in range(2, 9):
        return b""
    return b"MM\0\x2a\0\0\0\x08\0\x01" + struct.pack(">HHIHH", _ORIENTATION, 3, 1, value, 0) + b"\0\0\0\0"


def _damaged(source: Path) -> DataError:
    return DataError(f"{source}: damaged or not a picture of this kind. Copy or export the file again.")
