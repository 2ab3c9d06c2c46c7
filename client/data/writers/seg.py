"""Masks as DICOM SEG (PS3.3 A.51), referring to the images that they were made of.

Runs in a child process (`client.data.dicom.worker`), because it reads the headers of the source images.
https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_A.51.html
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
from highdicom import UID, AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SERIES_NUMBER = 9000
PRIVATE = "99FEDSCAN"
_ABNORMAL = frozenset(str(getattr(codes.cid7159, name).value) for name in codes.cid7159.dir())


def write_seg(
    *,
    files: Sequence[str],
    frames: Sequence[int],
    mask: str,
    labels: Sequence[Mapping[str, Any]],
    about: Mapping[str, str],
    into: str,
) -> dict[str, Any]:
    """Write a binary SEG of one volume of a DICOM series, or of one picture.

    Args:
        files: The file of each slice.
        frames: The 0-based frame of each slice in its file.
        mask: `.npy`, `(slices, rows, columns)` uint8, in the order of `files`.
        labels: `value`, `name`, `code` and `meaning` of each label; `code` may be empty.
        about: `series` (description), `name`, `version` and `model` of the algorithm.
        into: The file to write.

    Returns:
        How many frames the SEG has, 0 when no label was found: then there is no file, as a SEG without a frame is none.
    """
    voxels: NDArray[np.uint8] = np.load(mask, allow_pickle=False)
    present = [label for label in labels if (voxels == label["value"]).any()]
    if not present:
        return {"frames": 0}
    names = list(dict.fromkeys(files))
    headers = [_mended(dcmread(name, stop_before_pixels=True, force=True)) for name in names]
    first = headers[0]
    for other in headers[1:]:
        _join(other, first)
    if "PerFrameFunctionalGroupsSequence" in first:
        whole = np.zeros((int(first.NumberOfFrames), *voxels.shape[1:]), np.uint8)
        whole[list(frames)] = voxels
        voxels = whole
    elif "ImagePositionPatient" not in first:
        voxels = voxels[0]
    algorithm = AlgorithmIdentificationSequence(
        name=about["name"][:64], family=codes.cid7162.ArtificialIntelligence, version=about["version"][:64],
        source="fedscan", parameters={"model": about["model"]},
    )  # fmt: skip
    numbered = {label["value"]: number for number, label in enumerate(present, start=1)}
    renumbered = np.zeros_like(voxels)
    for value, number in numbered.items():
        renumbered[voxels == value] = number
    seg = Segmentation(
        source_images=headers,
        pixel_array=renumbered,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(numbered[label["value"]], label, algorithm) for label in present],
        series_instance_uid=UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="fedscan",
        manufacturer_model_name=about["name"][:64],
        software_versions=about["version"][:64],
        device_serial_number=about["model"][:64],
        content_description="Research only. Not for diagnosis.",
        content_label="RESEARCH",
        series_description=about["series"][:64],
        specific_character_set="ISO_IR 192",
    )
    seg.save_as(into)
    return {"frames": int(seg.NumberOfFrames)}


def _segment(number: int, label: Mapping[str, Any], algorithm: AlgorithmIdentificationSequence) -> SegmentDescription:
    kind, category = _concepts(label)
    return SegmentDescription(
        segment_number=number, segment_label=str(label["name"])[:64], segmented_property_category=category,
        segmented_property_type=kind, algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )  # fmt: skip


def _concepts(label: Mapping[str, Any]) -> tuple[Code, Code]:
    """What a label is, and what kind of thing that is (PS3.16, CID 7150).

    A label without a code gets one of a private scheme, and the broadest kind.
    """
    code, meaning = str(label["code"]), str(label["meaning"])
    if not code:
        return Code(_private(str(label["name"])), PRIVATE, str(label["name"])[:64]), codes.SCT.Tissue
    abnormal = code in _ABNORMAL
    category = codes.SCT.MorphologicallyAbnormalStructure if abnormal else codes.SCT.AnatomicalStructure
    return Code(code, "SCT", meaning[:64]), category


def _private(name: str) -> str:
    """A code of our own: the name, or for one longer than a code may be, its beginning and a part of its hash."""
    return name if len(name) <= 16 else f"{name[:9]}-{sha256(name.encode()).hexdigest()[:6]}"


def _mended(header: Dataset) -> Dataset:
    """A header without what would make the SEG wrong: found in files of real scanners and archives."""
    if "NumberOfFrames" not in header:
        for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            if keyword in header:
                del header[keyword]
    for element in header:
        if element.VR == "DA" and not _is_date(str(element.value)):
            element.value = ""
    return header


def _join(other: Dataset, first: Dataset) -> None:
    """Give a slice the frame of reference of the first one; some scanners give each slice one of its own.

    Only in memory: the SEG refers to the instances as they are.
    """
    if "FrameOfReferenceUID" in first:
        other.FrameOfReferenceUID = first.FrameOfReferenceUID
    # Directions that differ in the sixth decimal are one direction.
    if "ImageOrientationPatient" in first and np.allclose(
        np.array(first.ImageOrientationPatient, float), np.array(other.ImageOrientationPatient, float), atol=1e-4
    ):
        other.ImageOrientationPatient = first.ImageOrientationPatient


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True
