"""One table of file formats: a new format is one new file here and one line in `READERS`."""

from collections.abc import Callable
from pathlib import Path

from client.data.dicom.reading import is_dicom, read_only_stack, read_stack
from client.data.readers import image2d, nifti, nrrd
from client.data.volume import Source, Stack, Volume
from common.errors import DataError

Reader = Callable[[Path, bool], Volume]

# File name ending -> reader(path, label). `label` says that the numbers are classes, not brightness.
READERS: dict[str, Reader] = {
    **dict.fromkeys(nifti.SUFFIXES, nifti.read),
    **dict.fromkeys(nrrd.SUFFIXES, nrrd.read),
    **dict.fromkeys(image2d.SUFFIXES, image2d.read),
}


def suffix(path: Path) -> str | None:
    """The ending of `path` that `READERS` knows (".nii.gz" before ".gz"), or None for another format."""
    name = path.name.lower()
    known = [s for s in READERS if name.endswith(s) and len(name) > len(s)]
    return max(known, key=len, default=None)


def stem(path: Path) -> str:
    """The file name without the ending that says its format."""
    ending = suffix(path)
    return path.name[: -len(ending)] if ending else path.stem


def read(source: Source, *, label: bool = False) -> Volume:
    """The scan in `source`, axes in RAS+ order.

    Args:
        source: A file of one of the formats of `READERS`, a volume of a DICOM series, or a DICOM file or folder that
            holds exactly one volume.
        label: The file is a label map: palette indices are kept as numbers instead of being turned into colours.

    Raises:
        DataError: The file is missing, of an unknown format, damaged or too large; says which and what to do.
    """
    if isinstance(source, Stack):
        return read_stack(source)
    path = source
    if path.is_dir() or (path.is_file() and suffix(path) is None and is_dicom(path)):
        return read_only_stack(path)
    ending = suffix(path)
    if ending is None:
        raise DataError(
            f"{path}: unknown file format; known are {', '.join(READERS)}. Convert the file to one of them."
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path in the table or folder that names it.")
    return READERS[ending](path, label)
