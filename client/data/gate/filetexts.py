"""Free text inside NIfTI, NRRD and picture files, by field; for looking whether it names a person."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import ExifTags, Image

from client.data.readers import image2d, nifti, nrrd, suffix
from common.errors import DataError

EMBEDDED = "an embedded DICOM header"
_DAMAGED = (
    OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, AttributeError, struct.error, zlib.error,
    ImageFileError, HeaderDataError, WrapStructError, Image.DecompressionBombError, DataError,
)  # fmt: skip
_NIFTI_FIELDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
# Of an extension (https://nifti.nimh.nih.gov): a DICOM header.
_DICOM_EXTENSION = 2
_LONGEST = 64 * 1024  # characters of one text


def texts_of(path: Path) -> list[tuple[str, str]]:
    """(field, text) of everything in the file's header that is not a number; nothing for a file that is damaged."""
    ending = suffix(path) or ""
    try:
        return [(field, text[:_LONGEST]) for field, text in _READERS[ending](path)] if ending in _READERS else []
    except _DAMAGED:
        return []


def _nifti(path: Path) -> list[tuple[str, str]]:
    header: Any = nib.load(path).header
    fields = [(f"the field {name}", _plain(header[name].tobytes())) for name in _NIFTI_FIELDS if name in header]
    for extension in header.extensions:
        text = _plain(bytes(extension.get_content() if isinstance(extension.get_content(), bytes) else b""))
        fields.append((EMBEDDED if extension.get_code() == _DICOM_EXTENSION else "a header extension", text))
    return fields


def _nrrd(path: Path) -> list[tuple[str, str]]:
    with path.open("rb") as file:
        start = file.read(nrrd.MAX_HEADER).partition(b"\n\n")[0]
    return [("its header", _plain(start))]


def _picture(path: Path) -> list[tuple[str, str]]:
    with Image.open(path) as image:
        fields = [("its texts", f"{key} {_plain(value) if isinstance(value, bytes) else value}")
                  for key, value in image.info.items() if isinstance(value, str | bytes)]  # fmt: skip
        exif = image.getexif()
        for directory in (exif, exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)):
            fields += [("its EXIF data", str(value)) for value in directory.values() if isinstance(value, str)]
        # TIFF keeps its texts among the tags.
        tags = getattr(image, "tag_v2", {})
        fields += [("its texts", value) for value in tags.values() if isinstance(value, str)]
    return fields


def _plain(raw: bytes) -> str:
    return raw.decode("latin-1").replace("\0", " ")


_READERS: dict[str, Callable[[Path], list[tuple[str, str]]]] = {
    **dict.fromkeys(nifti.SUFFIXES, _nifti),
    **dict.fromkeys(nrrd.SUFFIXES, _nrrd),
    **dict.fromkeys(image2d.SUFFIXES, _picture),
}
