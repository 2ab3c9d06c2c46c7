"""The task `pixels`: the values of some slices, written into an array file. For child processes (`worker`)."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut

from client.data.dicom import codecs, parse
from client.data.dicom.elements import elements_of, text
from client.data.dicom.header import image_of
from client.data.dicom.problems import Unreadable
from client.data.dicom.records import Frame, Header
from client.data.dicom.values import dtype_of, fills_padding, inverted, stored_range

Array = NDArray[Any]


def pixels(into: str, offset: int, start: int, rows: int, columns: int, dtype: str,
           slices: list[list[Any]]) -> dict[str, Any]:  # fmt: skip
    """Write the values of `slices` into the array file `into`, as slices `start`, `start` + 1, …

    Args:
        into: An array file (slices, rows, columns) of its full size, made by the parent.
        offset: Where its values begin.
        start: Number of the first slice.
        rows: Of each slice.
        columns: Of each slice.
        dtype: Of the array.
        slices: For each slice: path, frame, size in bytes and modification time of the file.

    Returns:
        `padded`: how many pixels are padding; they hold the mark of `padding_mark`. `low`: the smallest real value.

    Raises:
        Unreadable: A file has changed, does not hold what its header says, or cannot be decoded; "narrow" if a value
            does not fit into `dtype`.
    """
    target = os.open(into, os.O_WRONLY)
    padded, low = 0, np.inf
    size = rows * columns * np.dtype(dtype).itemsize
    number = start
    try:
        for (path, length, changed), group in groupby(slices, key=lambda s: (s[0], s[2], s[3])):
            for values, mask in _values(Path(path), length, changed, [s[1] for s in group], (rows, columns), dtype):
                if mask is not None and mask.any():
                    padded += int(mask.sum())
                    low = min(low, float(values.min(where=~mask, initial=_highest(dtype))))
                    values[mask] = padding_mark(dtype)
                elif mask is not None:
                    low = min(low, float(values.min()))
                _write(target, values, offset + number * size)
                number += 1
    finally:
        os.close(target)
    return {"padded": padded, "low": low if low < _highest(dtype) else None}


def digest(path: str) -> dict[str, Any]:
    """`digest`: SHA-256 of all that follows where the pixels begin, as it is stored. Raises as `parse.parse`."""
    with parse.parse(Path(path)) as parsed:
        parsed.stream.seek(parsed.start)
        sha = hashlib.sha256()
        while part := parsed.stream.read(2**20):
            sha.update(part)
    return {"digest": sha.hexdigest()}


def padding_mark(dtype: str) -> float | int:
    """What stands for padding until the whole volume is known; `values.dtype_of` leaves it free."""
    return np.nan if dtype == "float32" else int(np.iinfo(dtype).min)


def _highest(dtype: str) -> float | int:
    return np.inf if dtype == "float32" else int(np.iinfo(dtype).max)


def _write(target: int, values: Array, at: int) -> None:
    rest = np.ascontiguousarray(values).data.cast("B")
    while rest:
        written = os.pwrite(target, rest, at)
        rest, at = rest[written:], at + written


def _values(path: Path, length: int, changed: int, frames: Sequence[int], shape: tuple[int, int],
            dtype: str) -> Iterator[tuple[Array, Array | None]]:  # fmt: skip
    """The values of some frames of a file, and which of them are padding."""
    with parse.parse(path) as parsed:
        state = os.fstat(parsed.stream.fileno())
        if (state.st_size, state.st_mtime_ns) != (length, changed):
            raise Unreadable("changed")
        codecs.check_readable(parsed.syntax)
        elements = elements_of(parsed.dataset)
        fields: Any = image_of(parsed, elements, marks=False)
        header = Header.model_construct(modality=text(elements, 0x00080060), syntax=parsed.syntax, **fields)
        if header.problem:
            raise Unreadable("damaged", header.problem)
        if (header.rows, header.columns) != shape or header.samples != 1 or max(frames) >= len(header.frames):
            raise Unreadable("changed")
        decode = _native if parsed.syntax in codecs.NATIVE else _encapsulated
        for number, stored in zip(frames, decode(parsed, header, frames), strict=True):
            mask = _padding(header, stored) if fills_padding(header) else None
            if inverted(header):
                low, high = stored_range(header)
                stored = (low + high) - stored.astype(np.int64)
            yield _rescaled(stored, header, header.frames[number], parsed.dataset, dtype), mask


def _native(parsed: parse.Parsed, header: Header, frames: Sequence[int]) -> Iterator[Array]:
    size = header.rows * header.columns * header.allocated // 8
    order = "<" if parsed.little else ">"
    kind = "f" if header.floating else "i" if header.signed else "u"
    for frame in frames:
        parsed.stream.seek(parsed.start + frame * size)
        data = parsed.stream.read(size)
        if len(data) < size:
            raise Unreadable("damaged", "the file is cut off")
        if header.allocated == 8 and not parsed.little and parsed.words and len(header.frames) == 1:
            data = _swapped(data, parsed)
        array = np.frombuffer(data, dtype=f"{order}{kind}{header.allocated // 8}")
        array = array.reshape(header.rows, header.columns)
        yield array if header.floating else _masked(array, header, header.high)


def _swapped(data: bytes, parsed: parse.Parsed) -> bytes:
    """Bytes that were stored as big-endian words lie in pairs the wrong way round."""
    if len(data) % 2:
        data += parsed.stream.read(1).ljust(1, b"\0")
    return np.frombuffer(data, dtype="<u2").byteswap().tobytes()[: len(data)]


def _encapsulated(parsed: parse.Parsed, header: Header, frames: Sequence[int]) -> Iterator[Array]:
    tables = [parsed.dataset.get(tag) for tag in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    options: dict[str, Any] = {"extended_offsets": tuple(tables)} if all(tables) else {}
    decoder = get_decoder(parsed.syntax)
    parsed.stream.seek(parsed.start)
    for array, _ in decoder.iter_array(
        parsed.stream, indices=list(frames), raw=True, rows=header.rows, columns=header.columns,
        samples_per_pixel=1, photometric_interpretation=header.photometric, bits_allocated=header.allocated,
        bits_stored=header.stored, pixel_representation=int(header.signed), pixel_keyword="PixelData",
        number_of_frames=len(header.frames), **options,
    ):  # fmt: skip
        if array.shape != (header.rows, header.columns):
            raise Unreadable("damaged", f"decoded to {array.shape} instead of {(header.rows, header.columns)}")
        yield _masked(array, header, header.stored - 1)


def _masked(array: Array, header: Header, high: int) -> Array:
    """Only the stored bits, with their sign: the others may hold overlays or nothing that counts."""
    if header.stored == header.allocated:
        return array
    up, down = header.allocated - 1 - high, header.allocated - header.stored
    kind = np.dtype(f"{'i' if header.signed else 'u'}{header.allocated // 8}")
    bits = array.astype(kind, copy=False)
    if not up and not header.signed and not int(bits.max()) >> header.stored:
        return bits
    masked: Array = np.right_shift(np.left_shift(bits, up, dtype=kind), down, dtype=kind)
    return masked


def _check_fits(stored: Array, frame: Frame) -> None:
    """Raise if a value leaves int16 or is the mark of padding, though the stored type would allow it."""
    ends = [int(end) * frame.slope + frame.intercept for end in (stored.min(), stored.max())]
    if not -(2**15) < min(ends) <= max(ends) < 2**15:
        raise Unreadable("narrow")


def _padding(header: Header, stored: Array) -> Array:
    low, high = header.padding or (0, 0)
    mask: Array = (stored == low) if low == high else (stored >= low) & (stored <= high)
    return mask


def _rescaled(stored: Array, header: Header, frame: Frame, dataset: Dataset, dtype: str) -> Array:
    """A new array of `dtype`: the modality lookup table, or slope and intercept; a VOI window is never applied."""
    if header.lut:
        return np.asarray(apply_modality_lut(stored, dataset)).astype(dtype)
    if dtype == "float32":
        with np.errstate(over="ignore"):
            return (stored.astype(np.float64) * frame.slope + frame.intercept).astype(np.float32)
    if dtype == "int16" and dtype_of([(header, frame)]) != "int16":
        _check_fits(stored, frame)
    values = stored.astype(dtype)
    if frame.slope != 1:
        values *= int(frame.slope)
    if frame.intercept != 0:
        values += int(frame.intercept)
    return values
