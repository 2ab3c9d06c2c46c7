"""Masks as NIfTI, voxel for voxel on the grid of a scan's own file."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from client.data.volume import Volume
from common.disk import write_whole
from common.errors import DataError

Mask = NDArray[np.uint8]

# Texts of a header that may say anything; a mask says nothing of its own there.
_TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")


def write_like(mask: Mask, volume: Volume, scan: Path, path: Path, about: str) -> None:
    """Write a mask with shape, affine, orientation and units of the file `scan`.

    Args:
        mask: `(*S)`, on the grid of `volume`.
        volume: What was read from `scan`.
        scan: The NIfTI file.
        path: The `.nii.gz` to write.
        about: At most 79 letters for the header.

    Raises:
        DataError: The scan was replaced meanwhile.
        StorageError: The disk is full.
    """
    try:
        with _opened(scan) as stream:
            source = _class(stream).from_stream(stream)
            shape, affine, header = source.shape, np.asarray(source.affine, np.float64), source.header.copy()  # type: ignore[no-untyped-call]
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise DataError(f"{scan}: cannot be read any more ({type(error).__name__}); it was changed meanwhile") from None
    spatial = tuple(int(n) for n in shape[:3])
    own = turned_back(mask, volume.affine, affine, spatial)
    for name in _TEXTS:
        if name in header:
            header[name] = b""
    header["descrip"] = about.encode("ascii", "replace")[:79]
    header["cal_max"] = header["cal_min"] = 0
    header.extensions.clear()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    _save(type(source)(own, None, header), path)


def write_on(mask: Mask, affine: NDArray[np.float64], path: Path, about: str) -> None:
    """Write a mask `(X, Y, Z)` under `affine` (voxel -> RAS+ mm); raises StorageError."""
    header = nib.Nifti1Header()  # type: ignore[no-untyped-call]
    header["descrip"] = about.encode("ascii", "replace")[:79]
    header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.uint8)  # type: ignore[no-untyped-call]
    image = nib.Nifti1Image(mask, None, header)  # type: ignore[no-untyped-call]
    image.set_sform(affine, 1)  # type: ignore[no-untyped-call]
    image.set_qform(affine, 1)  # type: ignore[no-untyped-call]
    _save(image, path)


def turned_back(mask: Mask, have: NDArray[np.float64], want: NDArray[np.float64], shape: tuple[int, ...]) -> Mask:
    """`mask` with its axes as in the file.

    Args:
        mask: `(*S)` under the affine `have`.
        have: Of the volume as it was read, axes nearest to RAS+.
        want: Of the file: the same axes in another order, some of them reversed.
        shape: Of the file.
    """
    full, three = mask.reshape(mask.shape + (1,) * (3 - mask.ndim)), shape + (1,) * (3 - len(shape))
    steps = np.rint(np.linalg.inv(want[:3, :3]) @ have[:3, :3]).astype(int)
    axes = np.abs(steps).argmax(axis=1)
    turned = full.transpose(axes)
    reverse = tuple(i for i, axis in enumerate(axes) if steps[i, axis] < 0)
    found = np.ascontiguousarray(np.flip(turned, reverse))
    if found.shape != three:
        raise ValueError(f"a mask of {found.shape} voxels for a file of {three}")
    return found.reshape(shape)


def _save(image: nib.Nifti1Image, path: Path) -> None:
    raw = image.to_bytes()
    # Without name and time, so that the same mask gives the same bytes.
    write_whole(path, lambda part: part.write_bytes(gzip.compress(raw, compresslevel=6, mtime=0)))


def _opened(path: Path) -> gzip.GzipFile:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")  # type: ignore[return-value]


def _class(stream: gzip.GzipFile) -> type[nib.Nifti1Image]:
    start = stream.read(4)
    stream.seek(0)
    sizes = (int.from_bytes(start, "little"), int.from_bytes(start, "big"))
    return nib.Nifti2Image if 540 in sizes else nib.Nifti1Image
