"""Pictures: PNG, JPEG and TIFF, grey or colour, 8 or 16 bits."""

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from client.data.volume import Volume
from common.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# Pillow itself warns above this number of pixels.
MAX_PIXELS = 89_478_485

_BITS_PER_SAMPLE = 258  # tag of TIFF 6.0

_TIFF = (".tif", ".tiff")

# What the two decoders raise on damaged bytes, found by changing bytes at random (see the tests).
_DAMAGED = (
    OSError, EOFError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, AttributeError,
    NotImplementedError, struct.error, zlib.error, tifffile.TiffFileError,
)  # fmt: skip


def read(path: Path, label: bool = False) -> Volume:
    """A picture as `(C, H, W)`: one channel for grey, three for colour; pixel size unknown, so the affine is 1.

    A palette becomes colours, or in a label map stays the index. An opaque alpha channel is dropped. EXIF orientation
    is applied, as viewers and annotation tools do.

    Raises:
        DataError: Damaged, truncated, too large, several pages, see-through pixels, or 16-bit colour PNG, which the
            decoder would silently reduce to 8 bits.
    """
    try:
        array = _with_pillow(path, label)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except _DAMAGED as error:
        if not (isinstance(error, UnidentifiedImageError) and path.suffix.lower() in _TIFF):
            raise _damaged(path, error) from None
        array = _with_tifffile(path)
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "iuf":
        raise DataError(f"{path}: shape {array.shape} of {array.dtype} is no picture. Save it as grey or RGB.")
    return Volume(array, np.eye(4))


def _with_pillow(path: Path, label: bool) -> NDArray[np.generic]:
    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(path)
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{path}: holds several pages. Save one picture per file.")
        if image.mode in ("RGB", "RGBA") and _deep(image):
            if path.suffix.lower() in _TIFF:
                return _with_tifffile(path)
            raise DataError(f"{path}: 16-bit colour PNG cannot be read without loss. Save it as TIFF.")
        picture = ImageOps.exif_transpose(image)
        if picture.mode == "P" and not label:
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            picture = picture.convert("RGB")
        array = np.asarray(picture)
    if picture.mode in ("LA", "PA", "RGBA"):
        array = _without_alpha(path, array)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return np.moveaxis(array, -1, 0) if array.ndim == 3 else array[np.newaxis]


def _deep(image: Image.Image) -> bool:
    """Colour of more than 8 bits, which Pillow reduces to 8 or, plane by plane, decodes wrongly."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return max(bits) > 8 or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _without_alpha(path: Path, array: NDArray[np.generic]) -> NDArray[np.generic]:
    if (array[..., -1] != 255).any():
        raise DataError(f"{path}: has see-through pixels, so its brightness is not defined. Save it without alpha.")
    colours = array[..., :-1]
    return colours[..., 0] if colours.shape[-1] == 1 else colours


def _with_tifffile(path: Path) -> NDArray[np.generic]:
    """TIFF that Pillow does not know or would not decode as it is."""
    try:
        with tifffile.TiffFile(path) as file:
            if len(file.pages) > 1:
                raise DataError(f"{path}: holds several pages. Save one picture per file.")
            page = file.pages.first
            if np.prod(page.shape[:3], dtype=np.int64) > 4 * MAX_PIXELS:
                raise _too_large(path)
            array = np.asarray(page.asarray())
            axes = page.axes
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged, not a picture, or compressed in a way that cannot be read ({type(error).__name__}). "
            "Save it again as TIFF without compression."
        ) from None
    if axes == "YXS" and array.shape[-1] == 3:
        return np.moveaxis(array, -1, 0)
    if axes == "SYX" and array.shape[0] == 3:
        return array
    if axes == "YX":
        return array[np.newaxis]
    raise DataError(f"{path}: TIFF with axes {axes} and shape {array.shape}. Save it as grey or RGB, one page.")


def _too_large(path: Path) -> DataError:
    return DataError(f"{path}: more than {MAX_PIXELS} pixels. Scale the picture down or cut it into tiles.")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged or not a picture ({type(error).__name__}). Copy or export the file again.")
