"""RT structure sets as they are stored (PS3.3 A.19, C.8.8.5, C.8.8.6). Only for child processes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from client.data.dicom.parse import Parsed
from client.data.dicom.problems import Unreadable
from client.data.structures.elements import code_in, first, number, sequence, text

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"

CONTOURS = 200_000
POINTS = 20_000_000
_FARTHEST = 1e5  # mm from the patient's origin

_CONTOUR_DATA = 0x30060050


def rtstruct(parsed: Parsed, into: Path) -> dict[str, Any]:
    """Describe a structure set and write the points of its contours to the .npy file `into`.

    Returns:
        JSON: `object` ("rtstruct"), `references` (SOP instance UIDs that the file names), `named` (indices of those
        under its referenced series) and `rois`: `number`, `name`, `code`, `category`, `frame_of_reference` and
        `contours`, each with `kind` (CLOSED_PLANAR, POINT, …), `start` and `count` (its points in the array) and
        `sources` (indices in `references`). The array is `(N, 3)` float64, LPS mm.

    Raises:
        Unreadable: Damaged or too large.
    """
    ds = parsed.dataset
    references: dict[str, int] = {}
    named = _named(ds, references)
    rois = _rois(ds)
    points = _Points()
    if not rois:
        raise Unreadable("header", "no structures")
    for item in sequence(ds, "ROIContourSequence"):
        roi = rois.get(number(item, "ReferencedROINumber"))
        if roi is None:
            raise Unreadable("header", "contours of a structure that is not described")
        for contour in sequence(item, "ContourSequence"):
            roi["contours"].append(_contour(contour, points, references))
    with into.open("wb") as file:
        np.lib.format.write_array(file, points.array, allow_pickle=False)
    return {"object": "rtstruct", "references": list(references), "named": named, "rois": list(rois.values())}


def _named(ds: Dataset, references: dict[str, int]) -> list[int]:
    """Instances under the referenced series (3006,0010)."""
    found = []
    for frame in sequence(ds, "ReferencedFrameOfReferenceSequence"):
        for study in sequence(frame, "RTReferencedStudySequence"):
            for series in sequence(study, "RTReferencedSeriesSequence"):
                for image in sequence(series, "ContourImageSequence"):
                    uid = text(image, "ReferencedSOPInstanceUID")
                    found.append(references.setdefault(uid, len(references)))
    return found


def _rois(ds: Dataset) -> dict[int, dict[str, Any]]:
    observed = {number(o, "ReferencedROINumber", -1): o for o in sequence(ds, "RTROIObservationsSequence")}
    rois: dict[int, dict[str, Any]] = {}
    for item in sequence(ds, "StructureSetROISequence"):
        key = number(item, "ROINumber")
        if key in rois:
            raise Unreadable("header", "two structures of one number")
        observation = observed.get(key, Dataset())
        rois[key] = {
            "number": key, "name": text(item, "ROIName"),
            "code": code_in(observation, "RTROIIdentificationCodeSequence"),
            "category": code_in(observation, "SegmentedPropertyCategoryCodeSequence"),
            "frame_of_reference": text(item, "ReferencedFrameOfReferenceUID") or _only_frame(ds),
            "contours": [],
        }  # fmt: skip
    return rois


def _only_frame(ds: Dataset) -> str:
    return text(first(ds, "ReferencedFrameOfReferenceSequence"), "FrameOfReferenceUID") or text(
        ds, "FrameOfReferenceUID"
    )


class _Points:
    """The points of all contours, one after the other."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float64]] = []
        self.number = 0

    def add(self, points: NDArray[np.float64]) -> int:
        """Where `points` begin."""
        start = self.number
        self._parts.append(points)
        self.number += len(points)
        if self.number > POINTS or len(self._parts) > CONTOURS:
            raise Unreadable("too-large", "contours")
        return start

    @property
    def array(self) -> NDArray[np.float64]:
        return np.concatenate([np.zeros((0, 3)), *self._parts])


def _contour(contour: Dataset, points: _Points, references: dict[str, int]) -> dict[str, Any]:
    own = _coordinates(contour)
    sources = [
        references.setdefault(text(image, "ReferencedSOPInstanceUID"), len(references))
        for image in sequence(contour, "ContourImageSequence")
    ]
    return {
        "kind": text(contour, "ContourGeometricType").upper(), "start": points.add(own), "count": len(own),
        "sources": sources,
    }  # fmt: skip


def _coordinates(contour: Dataset) -> NDArray[np.float64]:
    """`(N, 3)`; the text is parsed at once, which is much faster than one decimal after the other."""
    element = contour.get_item(_CONTOUR_DATA)
    if element is None or not element.value:
        return np.zeros((0, 3))
    if isinstance(element, RawDataElement):
        values = [part.strip(b" \0") for part in bytes(element.value or b"").split(b"\\")]
    else:
        values = [str(part).encode() for part in np.atleast_1d(element.value)]
    try:
        flat = np.array(values, dtype="S32").astype(np.float64)
    except ValueError:
        raise Unreadable("header", "contour data") from None
    if len(flat) % 3 or not (np.abs(flat) < _FARTHEST).all():
        raise Unreadable("header", "contour data")
    return flat.reshape(-1, 3)
