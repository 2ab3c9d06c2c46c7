"""NRRD files (.nrrd, .nhdr with the data beside it), read without trusting what the header promises.

The format is that of http://teem.sourceforge.net/nrrd/format.html; pynrrd parses the header's fields, the data are
read here, because pynrrd follows any path in `data file` and unpacks without a limit.
"""

import bz2
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nrrd
import numpy as np
from numpy.typing import NDArray

from client.data.readers.nifti import MAX_VALUES, canonical
from client.data.volume import Volume
from common.errors import DataError

SUFFIXES = (".nrrd", ".nhdr", ".seg.nrrd")

MAX_HEADER = 4 * 2**20  # bytes; a .seg.nrrd of a thousand segments has about one MiB

# Space -> what turns its axes to RAS+. The short and the long names are one.
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "RAS"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "LAS"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "LPS"), (-1, -1, 1)),
}
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"
    ),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
# StopIteration: pynrrd in an empty file.
_DAMAGED = (
    OSError, EOFError, ValueError, TypeError, LookupError, OverflowError, StopIteration, zlib.error, nrrd.NRRDError,
)  # fmt: skip


@dataclass(frozen=True)
class Nrrd:
    """A file as it is stored.

    Attributes:
        header: Its fields, custom ones included.
        array: `(L, I, J, K)`: the list axis (length 1 if there is none), then the spatial axes as stored.
        affine: `(4, 4)` spatial index -> RAS+ mm.
    """

    header: dict[str, Any]
    array: NDArray[np.generic]
    affine: NDArray[np.float64]


def read(path: Path, label: bool = False) -> Volume:
    """An NRRD file as `(C, X, Y, Z)`; a list, vector or colour axis becomes channels.

    Raises:
        DataError: Damaged, truncated, too large, without orientation, or with data elsewhere than beside the header.
    """
    stored = open_nrrd(path)
    array = stored.array[0] if len(stored.array) == 1 else np.moveaxis(stored.array, 0, 3)
    return canonical(path, array, stored.affine)


def open_nrrd(path: Path) -> Nrrd:
    """The file at `path`; raises as `read`."""
    try:
        with path.open("rb") as file:
            header = _header(file)
            lists, affine = _geometry(path, header)
            dtype, sizes = _numbers(path, header)
            count = int(np.prod(sizes, dtype=object))
            with _data(path, file, header) as data:
                raw = _bytes(data, header, count * dtype.itemsize)
        array = np.frombuffer(raw, dtype).reshape(sizes, order="F")
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged or not an NRRD file ({type(error).__name__}). Copy or export the file again."
        ) from None
    array = np.moveaxis(array, lists[0], 0) if lists else array[np.newaxis]
    return Nrrd(header, array.astype(dtype.newbyteorder("="), copy=False), affine)


def header_of(path: Path) -> dict[str, Any]:
    """The fields of the file's header alone; raises as `read`."""
    try:
        with path.open("rb") as file:
            return _header(file)
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged or not an NRRD file ({type(error).__name__}). Copy or export the file again."
        ) from None


def _header(file: BinaryIO) -> dict[str, Any]:
    """The header; `file` then stands at the first byte after it."""
    return dict(nrrd.read_header(_lines(file)))


def _lines(file: BinaryIO) -> Iterator[str]:
    left = MAX_HEADER
    while left > 0 and (line := file.readline(left)):
        left -= len(line)
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        yield text
        if not text:
            return
    if left <= 0:
        raise ValueError("the header does not end")


def _geometry(path: Path, header: dict[str, Any]) -> tuple[list[int], NDArray[np.float64]]:
    """The list axis, if there is one, and the affine of the three others."""
    signs = _SPACES.get(str(header.get("space", "")))
    directions = header.get("space directions")
    if signs is None or directions is None:
        raise DataError(
            f"{path}: does not say where left, front and top are (space: {header.get('space', 'none')}). Save it with "
            "`space` and `space directions`, as 3D Slicer and ITK do."
        )
    units = {str(unit).lower() for unit in header.get("space units", ())}
    if units - {"mm", "millimeter", "millimetre", "millimeters", ""}:
        raise DataError(f"{path}: its places are in {', '.join(sorted(units))}. Save it in mm.")
    directions = np.asarray(directions, dtype=np.float64)
    lists = [axis for axis, row in enumerate(directions) if np.isnan(row).all()]
    spatial = [axis for axis in range(len(directions)) if axis not in lists]
    if len(spatial) != 3 or len(lists) > 1 or len(directions) != header["dimension"]:
        raise DataError(f"{path}: has {len(spatial)} spatial axes of {header['dimension']}. Save one volume of three.")
    turn = np.diag([*signs, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = directions[spatial].T
    affine[:3, 3] = header["space origin"]
    return lists, turn @ affine


def _numbers(path: Path, header: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if header["type"] not in _TYPES:
        raise DataError(f"{path}: voxels are {header['type']}, not real numbers. Save one number per voxel.")
    sizes = tuple(int(n) for n in header["sizes"])
    values = int(np.prod(sizes, dtype=object))
    if len(sizes) != header["dimension"] or min(sizes) < 1 or values > MAX_VALUES:
        raise DataError(
            f"{path}: the header says {' × '.join(map(str, sizes))} values; 1 to {MAX_VALUES} can be read. Crop or "
            "export the scan again."
        )
    order = {"little": "<", "big": ">"}.get(str(header.get("endian", "little")).lower())
    dtype = np.dtype(_TYPES[header["type"]])
    if order is None or (dtype.itemsize > 1 and "endian" not in header):
        raise ValueError("endian")
    return dtype.newbyteorder(order), sizes  # type: ignore[arg-type]


def _data(path: Path, file: BinaryIO, header: dict[str, Any]) -> BinaryIO:
    """The stream at whose place the data begin: the file itself, or one beside a detached header."""
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return file
    beside = path.parent / str(name)
    plain = str(name) == Path(str(name)).name and str(name) not in ("", ".", "..", "LIST") and "%" not in str(name)
    if not plain or beside.is_symlink() or not beside.is_file():
        raise DataError(
            f"{path}: its data are not in one file beside it. Copy the file that `data file` names into the same "
            "folder, or save both as one .nrrd."
        )
    return beside.open("rb")


def _bytes(stream: BinaryIO, header: dict[str, Any], size: int) -> bytes | bytearray | memoryview:
    """Exactly `size` bytes of data, unpacked; more is never held."""
    skipped_lines = int(header.get("line skip", header.get("lineskip", 0)))
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    encoding = str(header["encoding"]).lower()
    if not 0 <= skipped_lines <= 1000 or not -1 <= skip <= MAX_HEADER:
        raise ValueError("skip")
    for _ in range(skipped_lines):
        stream.readline(MAX_HEADER)
    if encoding == "raw":
        stream.seek(*((-size, 2) if skip == -1 else (skip, 1)))
        return _all(stream.read(size), size)
    if encoding in ("ascii", "text", "txt"):
        raise DataError(f"{stream.name}: its data are text. Save it with the encoding gzip or raw.")
    unpack: Any = {"gzip": zlib.decompressobj, "gz": zlib.decompressobj, "bzip2": bz2.BZ2Decompressor,
                   "bz2": bz2.BZ2Decompressor}[encoding]  # fmt: skip
    unpacker = unpack(zlib.MAX_WBITS | 16) if unpack is zlib.decompressobj else unpack()
    skip = max(skip, 0)
    # In compressed data the skipped bytes are those of the unpacked stream.
    return _all(memoryview(_unpacked(stream, unpacker, size + skip))[skip:], size)


def _unpacked(stream: BinaryIO, unpacker: Any, size: int) -> bytearray:
    """The first `size` bytes that come out of `unpacker`."""
    out = bytearray()
    packed = stream.read(2**20)
    while len(out) < size and not unpacker.eof:
        if isinstance(unpacker, bz2.BZ2Decompressor):
            fresh = packed if unpacker.needs_input else b""
            out += unpacker.decompress(fresh, min(size - len(out), 2**24))
            wants = unpacker.needs_input
        else:
            out += unpacker.decompress(packed, min(size - len(out), 2**24))
            packed = unpacker.unconsumed_tail
            wants = not packed
        if wants and not unpacker.eof:
            packed = stream.read(2**20)
            if not packed:
                break
    return out


def _all(data: bytes | bytearray | memoryview, size: int) -> bytes | bytearray | memoryview:
    if len(data) < size:
        raise EOFError
    return data
