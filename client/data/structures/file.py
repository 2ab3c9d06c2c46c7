"""A DICOM file with named structures, in the form that the parent reads. Only for child processes."""

from pathlib import Path
from typing import Any

from client.data.dicom.parse import parse
from client.data.dicom.problems import Unreadable
from client.data.structures.elements import text
from client.data.structures.rt_file import STRUCTURE_SET, rtstruct
from client.data.structures.seg_file import LABEL_MAP, SEGMENTATION, seg


def structures(path: str, into: str) -> dict[str, Any]:
    """The task `structures`: describe the file `path` and write its frames or points to the .npy file `into`.

    Returns:
        What `seg_file.seg` or `rt_file.rtstruct` returns; `object` tells which.

    Raises:
        Unreadable: Neither a segmentation nor a structure set, damaged, or too large.
    """
    with parse(Path(path)) as parsed:
        kind = text(parsed.dataset, "SOPClassUID")
        if kind in (SEGMENTATION, LABEL_MAP):
            return seg(parsed, Path(into))
        if kind == STRUCTURE_SET:
            return rtstruct(parsed, Path(into))
    raise Unreadable("unsupported", "neither a segmentation nor a structure set")
