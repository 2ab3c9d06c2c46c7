"""NIfTI and NRRD files with clean headers and the same voxels."""

import gzip
import io
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from client.data.named import NamedLabels
from client.data.readers.nifti import MAX_VALUES
from client.data.readers.nrrd import Nrrd, open_nrrd
from client.data.structures.nrrd import numbered
from common.errors import DataError

_PART = 2**20


class _Fields:
    """Where the two versions of NIfTI keep what matters here (nifti1.h, nifti2.h): (offset, length) of free text."""

    def __init__(self, size: int, texts: tuple[tuple[int, int], ...], offset: str, place: int, dims: str,
                 dim_place: int, bits: int, magic: int) -> None:  # fmt: skip
        self.size, self.texts, self.offset, self.place = size, texts, offset, place
        self.dims, self.dim_place, self.bits, self.magic = dims, dim_place, bits, magic


# data_type, db_name, extents to regular, glmax and glmin, descrip, aux_file, intent_name
_ONE = _Fields(
    348, ((4, 10), (14, 18), (32, 7), (140, 8), (148, 80), (228, 24), (328, 16)), "f", 108, "8h", 40, 72, 344
)
# descrip, aux_file, intent_name, unused_str
_TWO = _Fields(540, ((240, 80), (320, 24), (508, 16), (525, 15)), "q", 168, "8q", 16, 14, 4)

# Slicer's fields of a segment whose values are numbers.
_SEGMENT = re.compile(r"(Segment\d+)_(LabelValue|Layer|Extent|Color|Name|ID)")
_NUMERIC = re.compile(r"[-+.\deE ]+")


def clean_nifti(source: Path, target: Path, label: bool) -> None:
    """Header fields of free text emptied, extensions and all else behind header and voxels left out.

    Raises:
        DataError: Damaged, not one file with header and voxels, or too large.
    """
    try:
        with _opened(source) as stream:
            header, length = _header(source, stream)
            with target.open("wb") as file:
                if target.name.endswith(".gz"):
                    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as packed:
                        _copy(source, stream, packed, header, length)
                else:
                    _copy(source, stream, file, header, length)
    except (EOFError, struct.error, gzip.BadGzipFile):
        raise _damaged(source) from None


def clean_nrrd(source: Path, target: Path, label: bool, rules: NamedLabels) -> None:
    """Written anew: voxels and their place, and of Slicer's segments the numbers and what the study calls them.

    Args:
        source: The file.
        target: Its copy.
        label: Whether it is a label.
        rules: How the site maps its structures to the study's labels.

    Raises:
        DataError: As the reader says.
    """
    stored = open_nrrd(source)
    lists = len(stored.array) > 1
    array = stored.array if lists else stored.array[0]
    steps = np.diag([-1.0, -1.0, 1.0]) @ stored.affine[:3]
    directions = [*([[np.nan] * 3] if lists else []), *steps[:, :3].T.tolist()]
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "kinds": [*(["list"] if lists else []), "domain", "domain", "domain"],
        "space directions": np.array(directions),
        "space origin": steps[:, 3],
        "encoding": "gzip",
    }
    nrrd.write(
        str(target), array, header | _segments(stored.header, _named(source, stored, rules)), compression_level=6
    )


def _named(source: Path, stored: Nrrd, rules: NamedLabels) -> dict[str, str | None]:
    try:
        return {f"Segment{i}": rules.label_of(segment) for i, segment in numbered(source, stored).items()}
    except DataError:  # A scan may say nonsense of segments and be a scan all the same.
        return {}


def _segments(header: dict[str, Any], names: Mapping[str, str | None]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in header.items():
        match = _SEGMENT.fullmatch(key)
        if not match:
            continue
        text = str(value)
        if match[2] == "ID" or match[2] == "Name":
            found[key] = match[1]
        elif _NUMERIC.fullmatch(text):
            found[key] = text
    return found | {f"{segment}_Name": label for segment, label in names.items() if label}


def _opened(source: Path) -> gzip.GzipFile | io.BufferedReader:
    with source.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(source) if packed else source.open("rb")


def _header(source: Path, stream: io.BufferedIOBase) -> tuple[bytes, int]:
    """The clean header with its empty extension flag, and the number of bytes of the voxels; `stream` at them."""
    start = stream.read(4)
    order = next((o for o in "<>" if struct.unpack(o + "i", start)[0] in (348, 540)), "")
    if not order:
        raise _damaged(source)
    fields = _ONE if struct.unpack(order + "i", start)[0] == 348 else _TWO
    header = bytearray(start + stream.read(fields.size - 4))
    if bytes(header[fields.magic : fields.magic + 3]) not in (b"n+1", b"n+2"):
        raise _damaged(source)
    (offset,) = struct.unpack_from(order + fields.offset, header, fields.place)
    sizes = struct.unpack_from(order + fields.dims, header, fields.dim_place)
    (bits,) = struct.unpack_from(order + "h", header, fields.bits)
    values = 1
    for size in sizes[1 : 1 + sizes[0]]:
        values *= size
    if not (0 < sizes[0] <= 7 and 0 < values <= MAX_VALUES and 0 < bits <= 256):
        raise _damaged(source)
    for place, length in fields.texts:
        header[place : place + length] = bytes(length)
    struct.pack_into(order + fields.offset, header, fields.place, fields.size + 4)
    _skip(source, stream, int(offset) - fields.size)
    return bytes(header) + bytes(4), values * bits // 8


def _skip(source: Path, stream: io.BufferedIOBase, length: int) -> None:
    if length < 0:
        raise _damaged(source)
    while length > 0:
        part = stream.read(min(length, _PART))
        if not part:
            raise _damaged(source)
        length -= len(part)


def _copy(source: Path, stream: io.BufferedIOBase, target: Any, header: bytes, length: int) -> None:
    target.write(header)
    while length > 0:
        part = stream.read(min(length, _PART))
        if not part:
            raise _damaged(source)
        target.write(part)
        length -= len(part)


def _damaged(source: Path) -> DataError:
    return DataError(f"{source}: damaged, or not one file with header and voxels. Copy or export the file again.")
