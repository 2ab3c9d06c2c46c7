"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz), in any stored orientation."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from client.data.volume import Volume
from common.errors import DataError

SUFFIXES = (".nii", ".nii.gz")

# A header can promise any size; this much is read at most (a whole-body CT of 512 x 512 x 2000 fits).
MAX_VALUES = 2**30

_DAMAGED = (
    OSError, EOFError, ValueError, OverflowError, zlib.error, struct.error,
    ImageFileError, HeaderDataError, WrapStructError,
)  # fmt: skip


def read(path: Path, label: bool = False) -> Volume:
    """A NIfTI file as `(C, X, Y, Z)`, or `(C, X, Y)` if its header says two dimensions.

    The scale slope and intercept are applied. Channels stand on the 4th axis (or the 5th, where NIfTI puts vectors).

    Raises:
        DataError: Damaged, truncated, too large, complex or RGB voxels, no usable affine, or a time series.
    """
    try:
        with _open(path) as stream:
            image = _image_class(stream).from_stream(stream)
            _check_header(path, image)
            array = np.asanyarray(image.dataobj)
            _drain(stream)
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged or not a NIfTI file ({type(error).__name__}). Copy or export the file again."
        ) from None
    return canonical(path, array, np.asarray(image.affine, dtype=np.float64))


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """By content, not by name: `.nii` files that are gzipped, and the reverse, are common."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")


def _image_class(stream: io.BufferedIOBase) -> type[nib.Nifti1Image]:
    start = stream.read(4)
    stream.seek(0)
    return nib.Nifti2Image if 540 in struct.unpack("<i", start) + struct.unpack(">i", start) else nib.Nifti1Image


def _check_header(path: Path, image: nib.Nifti1Image) -> None:
    dtype = image.get_data_dtype()  # type: ignore[no-untyped-call]
    if dtype.kind not in "iuf":
        raise DataError(
            f"{path}: voxels are {dtype}, not real numbers. Save a scan with one number per voxel and channel."
        )
    values = int(np.prod([int(n) for n in image.shape], dtype=object))
    if not 0 < values <= MAX_VALUES:
        raise DataError(
            f"{path}: the header says {values} values; 1 to {MAX_VALUES} can be read. Crop or export the scan again."
        )


def _drain(stream: io.BufferedIOBase) -> None:
    """Read to the end, so that gzip compares its checksum; stops where the file holds far more than it should."""
    for _ in range(64):
        if not stream.read(2**20):
            return


def canonical(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64]) -> Volume:
    """A stored `array` (X, Y[, Z[, C or 1[, C]]]) as a Volume with its axes turned to the nearest RAS+ order.

    Raises:
        DataError: Too many dimensions, or an affine that cannot be used; the message names `path`.
    """
    flat = array.ndim <= 2
    while array.ndim < 3:
        array = array[..., np.newaxis]
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0, :]
    if array.ndim > 4:
        raise DataError(f"{path}: {array.ndim} dimensions {array.shape}. Save one volume, channels on the 4th axis.")
    try:
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise OrientationError("singular affine")
        image = nib.Nifti1Image(array, affine, dtype=array.dtype)  # type: ignore[no-untyped-call]
        image = nib.as_closest_canonical(image)  # type: ignore[no-untyped-call]
    except (OrientationError, HeaderDataError) as error:
        raise DataError(
            f"{path}: its orientation cannot be used ({error}). Export the scan again with a valid sform or qform."
        ) from None
    turned = np.asanyarray(image.dataobj)
    turned = np.moveaxis(turned, 3, 0) if turned.ndim == 4 else turned[np.newaxis]
    if flat and turned.shape[3] == 1:
        turned = turned[..., 0]
    return Volume(turned, np.asarray(image.affine, dtype=np.float64))
