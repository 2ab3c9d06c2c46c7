"""A DICOM file opened whole, for what must see all of it. Runs in the child with limits."""

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from client.data.dicom import limits
from client.data.dicom.parse import parse
from client.data.dicom.problems import Unreadable


def open_file(path: Path, pixels: bool = True) -> Dataset:
    """The data set in `path`, also of a file without preamble; not yet decoded.

    Raises:
        Unreadable: Not DICOM, damaged, too large, or deflated as a whole, which can hide any size.
    """
    if path.stat().st_size > limits.FILE:
        raise Unreadable("too-large")
    with parse(path) as parsed:
        syntax = parsed.syntax
    # What is no DICOM was refused by now: here `force` only means that the preamble may be missing.
    whole = dcmread(path, force=True, stop_before_pixels=not pixels)
    if not whole.get("SOPClassUID") or not whole.get("SOPInstanceUID"):
        raise Unreadable("not-dicom")
    whole.file_meta.TransferSyntaxUID = UID(syntax)
    return whole
