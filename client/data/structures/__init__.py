"""Labels that have names: DICOM SEG, RT structure sets and 3D Slicer's .seg.nrrd, on an image's grid."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data.dicom.workers import Workers, shared_workers
from client.data.readers import suffix
from client.data.structures.belonging import stack_of
from client.data.structures.model import Code, Misfit, Note, Segment, Structures
from client.data.structures.nrrd import SlicerSegmentation, describes_segments, segments_of
from client.data.structures.rtstruct import StructureSet, roi_of
from client.data.structures.seg import Segmentation, segment_of
from client.data.volume import Source, Volume

__all__ = ["Code", "Misfit", "Note", "Segment", "Structures", "has_names", "names_in", "open_structures",
           "segments_in"]  # fmt: skip

_SECONDS = 300.0  # for a hundred structures of a long CT on a slow machine


def has_names(path: Path) -> bool:
    """Whether the label file at `path` holds named structures: DICOM, and NRRD that describes its segments.

    Raises:
        DataError: An NRRD file that cannot be read.
    """
    ending = suffix(path)
    return ending is None or (ending in (".nrrd", ".seg.nrrd", ".nhdr") and describes_segments(path))


def open_structures(path: Path, image: Source, volume: Volume, workers: Workers | None = None) -> Structures:
    """The named structures of the file `path` for one image.

    Args:
        path: A DICOM segmentation or structure set, or an NRRD file that describes its segments.
        image: Where the image comes from; DICOM labels go with DICOM volumes only.
        volume: The image as it was read; its voxels `(C, X, Y, Z)` are the masks' grid.
        workers: Processes that parse DICOM; those of this process by default.

    Raises:
        DataError: The file cannot be read; its subclass Misfit: it does not fit the image.
    """
    structures = _structures(path, image, volume, workers)
    if not structures.segments:
        raise Misfit("label-name", "holds no structures", "Export the label again, with its structures.")
    return structures


def _structures(path: Path, image: Source, volume: Volume, workers: Workers | None) -> Structures:
    if suffix(path) is not None:
        return SlicerSegmentation(path, volume)
    stack = stack_of(image)
    file, array = _read(path, workers)
    kind = Segmentation if file["object"] == "seg" else StructureSet
    return kind(file, array, stack, volume)


def names_in(path: Path, workers: Workers | None = None) -> list[str]:
    """The names of the structures in the file `path`, with their codes; raises DataError as `open_structures`."""
    if suffix(path) is not None:
        return [s.name if s.code is None else f"{s.name} ({s.code.value} {s.code.meaning})" for s in segments_of(path)]
    file, _ = _read(path, workers)
    return [_called(item) for item in file["segments" if file["object"] == "seg" else "rois"]]


def segments_in(path: Path, workers: Workers | None = None) -> tuple[Segment, ...]:
    """The structures of the DICOM file `path`, whatever its image; raises DataError as `open_structures`."""
    file, _ = _read(path, workers)
    return (
        tuple(segment_of(s) for s in file["segments"]) if file["object"] == "seg" else tuple(map(roi_of, file["rois"]))
    )


def _called(item: Mapping[str, Any]) -> str:
    code = item.get("code")
    return f"{item['name']} ({code['value']} {code['meaning']})" if code else str(item["name"])


def _read(path: Path, workers: Workers | None) -> tuple[dict[str, Any], NDArray[Any]]:
    with tempfile.TemporaryDirectory(prefix="fedscan-") as scratch:
        into = Path(scratch) / "structures.npy"
        pool = workers or shared_workers()
        file = pool.ask("structures", seconds=_SECONDS, path=str(path), into=str(into))
        return file, np.load(into, allow_pickle=False)
