"""Writes label maps of phantoms as hospitals have them: DICOM SEG with coded segments, or RT structure sets.

Codes are SNOMED CT concepts. RT structure sets follow PS3.3 A.19.3 and C.8.8.5 to C.8.8.8; their contours run half-way
between the centres of the last voxels inside and the first outside, so that "which centres lie inside" gives the label
map back exactly. https://dicom.nema.org/medical/dicom/current/output/chtml/part03/PS3.3.html
"""

from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from skimage.measure import find_contours

from simulations.dicom_series import frame_order, uid

# Name of the segment, what it is, and what it is called where somebody outlines by hand.
CODES = {
    "liver": ("Liver", Code("10200004", "SCT", "Liver"), "LIVER"),
    "kidneys": ("Kidneys", Code("64033007", "SCT", "Kidney"), "Kidneys both"),
}
COUCH = "CouchSurface"
_ORGAN = Code("123037004", "SCT", "Anatomical Structure")
_SERIES = 90  # number of the label's series


def write_seg(
    label: NDArray[np.uint8], affine: NDArray[np.float64], images: Sequence[Dataset], path: Path, organs: Sequence[str]
) -> None:
    """Write a label map as a binary DICOM SEG of the series (or of the one picture) `images`.

    Args:
        label: `(X, Y, Z)`; value i + 1 is `organs[i]`.
        affine: `(4, 4)` of the series, as given to `write_series`.
        images: What `write_series` or `write_picture` returned.
        path: Where to write.
        organs: Names from CODES.
    """
    order = frame_order(images[0], affine) if "PerFrameFunctionalGroupsSequence" in images[0] else range(label.shape[2])
    frames = np.ascontiguousarray(label.T[list(order)])
    patient = str(images[0].PatientID)
    seg = Segmentation(
        source_images=images,
        pixel_array=frames[0] if "ImagePositionPatient" not in images[0] and len(frames) == 1 else frames,
        segmentation_type="BINARY",
        segment_descriptions=[_segment(i + 1, organ) for i, organ in enumerate(organs)],
        series_instance_uid=uid(patient, _SERIES),
        series_number=_SERIES,
        sop_instance_uid=uid(patient, _SERIES, 0),
        instance_number=1,
        manufacturer="fedscan phantom",
        manufacturer_model_name="phantom",
        software_versions="1",
        device_serial_number="1",
        content_label="PHANTOM",
    )
    _without_clock_or_chance(seg, images[0])
    seg.save_as(path)


def write_rtstruct(
    label: NDArray[np.uint8], affine: NDArray[np.float64], images: Sequence[Dataset], path: Path, organs: Sequence[str]
) -> None:
    """Write a label map as an RT structure set of single-frame `images`; arguments as of `write_seg`.

    Beside the organs it outlines a couch, as structure sets of a treatment do.
    """
    first = images[0]
    data = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved", "StudyID",
                    "DeidentificationMethod", "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber",
                    "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator", "Manufacturer",
                    "SeriesDate", "SeriesTime"):  # fmt: skip
        setattr(data, keyword, first[keyword].value)
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, uid(first.PatientID, _SERIES, 0)
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = "RTSTRUCT", uid(first.PatientID, _SERIES), _SERIES
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "PHANTOM", first.StudyDate, first.StudyTime
    data.InstanceNumber, data.ApprovalStatus, data.OperatorsName = 1, "UNAPPROVED", ""
    data.ReferencedFrameOfReferenceSequence = [_referenced(images)]
    names = [*(CODES[organ][2] for organ in organs), COUCH]
    contours = [_outlines(label == i + 1, affine, images) for i in range(len(organs))]
    contours.append([_contour(_couch(label.shape), affine, images[0], 0)])
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    for number, (name, items) in enumerate(zip(names, contours, strict=True), start=1):
        roi, drawn, seen = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, first.FrameOfReferenceUID
        roi.ROIName, roi.ROIGenerationAlgorithm = name, "MANUAL"
        drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, [255, 0, 0]
        drawn.ContourSequence = items
        seen.ObservationNumber = seen.ReferencedROINumber = number
        seen.RTROIInterpretedType, seen.ROIInterpreter = "SUPPORT" if name == COUCH else "ORGAN", ""
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
        data.RTROIObservationsSequence.append(seen)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    data.save_as(path, enforce_file_format=True)


def _segment(number: int, organ: str) -> SegmentDescription:
    name, code, _ = CODES[organ]
    return SegmentDescription(number, name, _ORGAN, code, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL)


def _without_clock_or_chance(seg: Dataset, image: Dataset) -> None:
    """The same phantom gives the same bytes: no time of writing, no random UID."""
    dimension = uid(image.PatientID, _SERIES, "dimension")
    for item in [*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence]:
        item.DimensionOrganizationUID = dimension
    for element in seg:
        if element.VR in ("DA", "TM") and element.keyword.startswith(("Content", "Series", "Instance", "Structure")):
            element.value = image.StudyDate if element.VR == "DA" else image.StudyTime
    if "ContributingEquipmentSequence" in seg:
        for item in seg.ContributingEquipmentSequence:
            item.pop("ContributionDateTime", None)


def _outlines(mask: NDArray[np.bool_], affine: NDArray[np.float64], images: Sequence[Dataset]) -> list[Dataset]:
    return [
        _contour(line - 1, affine, images[z], z)
        for z in np.flatnonzero(mask.any(axis=(0, 1))).tolist()
        # A rim of zeros, so that outlines close at the border; the closing point is not repeated.
        for line in (contour[:-1] for contour in find_contours(np.pad(mask[:, :, z], 1).astype(float), 0.5))
    ]


def _couch(shape: Sequence[int]) -> NDArray[np.float64]:
    """A flat box below the patient, in voxel indices `(N, 2)`."""
    width, height = shape[:2]
    return np.array([[2, height - 4], [width - 3, height - 4], [width - 3, height - 2], [2, height - 2]], float)


def _contour(line: NDArray[np.float64], affine: NDArray[np.float64], image: Dataset, z: int) -> Dataset:
    """A closed planar contour through voxel indices `(N, 2)` of slice `z`."""
    points = np.column_stack([line, np.full(len(line), z), np.ones(len(line))]) @ affine.T
    points[:, :2] *= -1  # RAS+ to LPS+
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(line)
    item.ContourData = [f"{v:.6f}" for v in points[:, :3].ravel()]
    item.ContourImageSequence = [_reference(image)]
    return item


def _referenced(images: Sequence[Dataset]) -> Dataset:
    """The frame of reference with the study and the series that were outlined."""
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in images]
    # A retired class, which structure sets still name here (PS3.3 table C.8-41).
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = images[0].FrameOfReferenceUID, [study]
    return frame


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
