"""The voxels of a stack: decoded by child processes, slice by slice, into an array on disk that is mapped, not read."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data.dicom import limits
from client.data.dicom.geometry import to_ras
from client.data.dicom.problems import AGAIN, REMEDIES, Unreadable
from client.data.dicom.scan import ENDINGS, scan
from client.data.dicom.workers import Workers, shared_workers
from client.data.volume import Stack, Volume
from common.errors import DataError

# Seconds that a share of the slices may take: in all, per file (a slow network drive), and per megapixel, of which JPEG
# 2000 needs about 0.1 and Python's RLE about 1. A damaged stream can keep CharLS busy for long over a few kilobytes.
_SECONDS, _PER_FILE, _PER_MEGAPIXEL = 4.0, 0.5, 20.0


def read_stack(stack: Stack, workers: Workers | None = None) -> Volume:
    """The volume `(1, X, Y, Z)` with its axes in the nearest RAS+ order, or the picture `(1, H, W)`.

    Values are the stored ones after slope and intercept of each slice (or the modality lookup table); no window is
    applied. Padding in CT and in projections takes the smallest real value; projections in MONOCHROME1 are inverted.
    The array is backed by a file that is already deleted: it costs memory only where it is touched.

    Raises:
        DataError: A file is gone, has changed since it was listed, or cannot be decoded; says why and what to do.
    """
    try:
        array = _array(stack, workers or shared_workers())
    except Unreadable as error:
        raise DataError(f"{stack}: {error}. {REMEDIES.get(error.reason, AGAIN)}") from None
    if len(stack.shape) == 2:
        return Volume(array, stack.affine)
    turned, affine = to_ras(array.transpose(2, 1, 0), stack.affine)
    return Volume(turned[np.newaxis], affine)


def read_only_stack(path: Path, workers: Workers | None = None) -> Volume:
    """The volume or picture of a DICOM file, or of a folder that holds exactly one.

    Raises:
        DataError: It holds none, or several; or as `read_stack`.
    """
    stacks, _, findings = scan(path, workers=workers)
    if len(stacks) == 1:
        return read_stack(stacks[0], workers)
    if stacks:
        names = ", ".join(stack.name or stack.description or stack.modality for stack in stacks[:8])
        what = f"{path}: holds {len(stacks)} DICOM volumes ({names})"
        raise DataError(f"{what}. Give each a folder, or choose one by name.")
    why = next((f" {f.what}. {f.remedy}" for f in findings if f.severity == "error"), "")
    raise DataError(f"{path}: no DICOM volume that can be read.{why or ' Check the path.'}")


def is_dicom(path: Path) -> bool:
    """Whether a file is called, or begins, as DICOM does; nothing of it is interpreted."""
    if path.suffix.lower() in ENDINGS:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _array(stack: Stack, workers: Workers) -> NDArray[np.generic]:
    """`(slices, rows, columns)` of the type that the stack names, or of int16 where a CT's values fit, as most do."""
    if stack.modality == "CT" and stack.dtype == "int32":
        try:
            return _array_of(stack, "int16", workers)
        except Unreadable as error:
            if error.reason != "narrow":
                raise
    return _array_of(stack, stack.dtype, workers)


def _array_of(stack: Stack, dtype: str, workers: Workers) -> NDArray[np.generic]:
    rows, columns = (stack.shape[1], stack.shape[0]) if len(stack.shape) == 3 else stack.shape
    shape = (len(stack.files), rows, columns)
    if int(np.prod(shape, dtype=np.float64)) > limits.VOXELS:
        raise Unreadable("too-large", " x ".join(map(str, shape)))
    with tempfile.TemporaryDirectory(prefix="fedscan-") as scratch:
        into = Path(scratch) / "voxels.npy"
        array = np.lib.format.open_memmap(into, mode="w+", dtype=np.dtype(dtype), shape=shape)
        answers = _fill(stack, dtype, workers, into, int(array.offset), rows, columns)
    padded = sum(int(answer["padded"]) for answer in answers)
    if padded:
        lows = [float(answer["low"]) for answer in answers if answer["low"] is not None]
        low = np.dtype(dtype).type(min(lows) if lows else 0)
        for one in array:
            np.fmax(one, low, out=one)  # The mark is NaN, or smaller than all that a slice can hold.
    return array.view(np.ndarray)


def _fill(stack: Stack, dtype: str, workers: Workers, into: Path, offset: int, rows: int,
          columns: int) -> list[dict[str, Any]]:  # fmt: skip
    slices = [
        [str(file), frame, *size] for file, frame, size in zip(stack.files, stack.frames, stack.sizes, strict=True)
    ]
    share = max(1, min(limits.SLAB // (8 * rows * columns), -(-len(slices) // (2 * workers.number))))

    def ask(start: int) -> dict[str, Any]:
        part = slices[start : start + share]
        seconds = _SECONDS + _PER_FILE * len(part) + _PER_MEGAPIXEL * len(part) * rows * columns / 1e6
        return workers.ask(
            "pixels", seconds=seconds, into=str(into), offset=offset, start=start, rows=rows, columns=columns,
            dtype=dtype, slices=part,
        )  # fmt: skip

    with ThreadPoolExecutor(workers.number) as pool:
        futures = [pool.submit(ask, start) for start in range(0, len(slices), share)]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)
