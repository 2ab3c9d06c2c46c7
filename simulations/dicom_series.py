"""Writes made-up scans as DICOM: CT- or MR-like series of single frames, one enhanced multi-frame file, X-ray pictures.

What is written where follows DICOM PS3.3: C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups), C.8.11.3
(digital X-ray), C.11.1 (rescale). https://dicom.nema.org/medical/dicom/current/output/chtml/part03/PS3.3.html
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from common.seeds import generator

_SINGLE = {"CT": CTImageStorage, "MR": MRImageStorage, "DX": DigitalXRayImageStorageForPresentation}
_ENHANCED = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage}
_DATE = "20200101"  # the phantoms' only day


@dataclass(frozen=True)
class Acquisition:
    """How a series is stored.

    Attributes:
        modality: `CT`, `MR` or `DX`.
        syntax: UID of the transfer syntax; a lossless one.
        enhanced: All slices as frames of one file, in any order, instead of one file each.
        offset: Added to each value before it is stored unsigned, and taken off by RescaleIntercept; 0 stores signed.
        description: SeriesDescription.
        number: SeriesNumber.
        purpose: Third value of ImageType of single frames.
    """

    modality: str = "MR"
    syntax: str = ExplicitVRLittleEndian
    enhanced: bool = False
    offset: int = 0
    description: str = "phantom axial"
    number: int = 1
    purpose: str = "AXIAL"


def uid(*parts: object) -> str:
    """A DICOM UID that is the same for the same `parts`: a 128-bit number under 2.25 (PS3.5 B.2)."""
    digest = hashlib.sha256("/".join(str(p) for p in parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def write_series(
    array: NDArray[np.int16], affine: NDArray[np.float64], folder: Path, patient: str, how: Acquisition
) -> list[Dataset]:
    """Write a volume as the DICOM files of one series, under names that say nothing of their order.

    Args:
        array: `(X, Y, Z)`: columns, rows, slices.
        affine: `(4, 4)` voxel index -> RAS+ mm.
        folder: Gets the files.
        patient: PatientID; with the series number it decides all UIDs.
        how: How the series is stored.

    Returns:
        The data sets, one per slice in the order of Z, or the one enhanced file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = generator(how.number, "dicom files", patient)
    if how.enhanced:
        order = [int(i) for i in rng.permutation(array.shape[2])]
        sets = [_enhanced(array, affine, patient, how, order)]
    else:
        sets = [_single(array, affine, patient, how, index) for index in range(array.shape[2])]
    for name, data in zip(rng.permutation(len(sets)), sets, strict=True):
        _store(data, how.syntax, folder / f"IM{name:05d}")
    return sets


def write_picture(array: NDArray[np.uint8], pixel: float, path: Path, patient: str, syntax: str) -> Dataset:
    """Write a grey picture `(H, W)` with pixels of `pixel` mm as one digital X-ray image without a place in space."""
    how = Acquisition("DX", syntax, description="phantom picture")
    data = _common(patient, how, _SINGLE["DX"], uid(patient, how.number, 0))
    data.ImageType = ["DERIVED", "PRIMARY", ""]
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.Rows, data.Columns = array.shape
    data.ImagerPixelSpacing = [pixel, pixel]
    data.PresentationIntentType = "FOR PRESENTATION"
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.PresentationLUTShape, data.LossyImageCompression = "IDENTITY", "00"
    data.PatientOrientation, data.ImageLaterality = ["L", "F"], "U"
    data.InstanceNumber = 1
    del data.FrameOfReferenceUID, data.PositionReferenceIndicator
    data.PixelData = np.ascontiguousarray(array).tobytes()
    _store(data, syntax, path)
    return data


def frame_order(data: Dataset, affine: NDArray[np.float64]) -> list[int]:
    """The slice index (Z) of each frame of an enhanced file that was written with `affine`."""
    back = np.linalg.inv(_to_lps(affine))
    places = [np.array([*f.PlanePositionSequence[0].ImagePositionPatient, 1.0], float)
              for f in data.PerFrameFunctionalGroupsSequence]  # fmt: skip
    return [round(float((back @ place)[2])) for place in places]


def _single(array: NDArray[np.int16], affine: NDArray[np.float64], patient: str, how: Acquisition, z: int) -> Dataset:
    place = _to_lps(affine)
    data = _common(patient, how, _SINGLE[how.modality], uid(patient, how.number, z))
    _pixels(data, array[:, :, z : z + 1], how)
    data.ImageType = ["ORIGINAL", "PRIMARY", how.purpose]
    if how.offset or how.modality == "CT":
        data.RescaleIntercept, data.RescaleSlope = -how.offset, 1
        data.RescaleType = "HU" if how.modality == "CT" else "US"
    data.ImagePositionPatient = _decimals((place @ [0, 0, z, 1])[:3])
    data.ImageOrientationPatient = _orientation(place)
    data.update(_measures(place))
    # The last slice first, as scanners that go from feet to head number them.
    data.InstanceNumber = array.shape[2] - z
    return data


def _enhanced(
    array: NDArray[np.int16], affine: NDArray[np.float64], patient: str, how: Acquisition, order: Sequence[int]
) -> Dataset:
    place = _to_lps(affine)
    data = _common(patient, how, _ENHANCED[how.modality], uid(patient, how.number, "enhanced"))
    _pixels(data, array[:, :, list(order)], how)
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.PixelPresentation, data.VolumetricProperties = "MONOCHROME", "VOLUME"
    data.VolumeBasedCalculationTechnique, data.ComplexImageComponent = "NONE", "MAGNITUDE"
    data.AcquisitionContrast, data.PresentationLUTShape, data.LossyImageCompression = "UNKNOWN", "IDENTITY", "00"
    data.NumberOfFrames, data.InstanceNumber = len(order), 1
    dimension = uid(patient, how.number, "dimension")
    data.DimensionOrganizationSequence = [_of(DimensionOrganizationUID=dimension)]
    data.DimensionIndexSequence = [
        # The index points to ImagePositionPatient within the plane position.
        _of(DimensionOrganizationUID=dimension, DimensionIndexPointer=0x00200032, FunctionalGroupPointer=0x00209113)
    ]
    rescale = _of(RescaleIntercept=-how.offset, RescaleSlope=1, RescaleType="HU" if how.modality == "CT" else "US")
    data.SharedFunctionalGroupsSequence = [
        _of(
            PixelMeasuresSequence=[_measures(place)],
            PlaneOrientationSequence=[_of(ImageOrientationPatient=_orientation(place))],
            PixelValueTransformationSequence=[rescale],
        )
    ]
    data.PerFrameFunctionalGroupsSequence = [
        _of(
            FrameContentSequence=[_of(StackID="1", InStackPositionNumber=z + 1, DimensionIndexValues=[z + 1])],
            PlanePositionSequence=[_of(ImagePositionPatient=_decimals((place @ [0, 0, z, 1])[:3]))],
        )
        for z in order
    ]
    return data


def _common(patient: str, how: Acquisition, sop_class: str, instance: str) -> Dataset:
    """What all images of a series say of patient, study, series and equipment."""
    return _of(
        SOPClassUID=sop_class,
        SOPInstanceUID=instance,
        PatientName="Phantom^",
        PatientID=patient,
        PatientBirthDate="",
        PatientSex="O",
        PatientIdentityRemoved="YES",
        DeidentificationMethod="Made up: there is no patient",
        StudyInstanceUID=uid(patient, "study"),
        SeriesInstanceUID=uid(patient, how.number),
        FrameOfReferenceUID=uid(patient, "frame of reference"),
        PositionReferenceIndicator="",
        StudyID="1",
        StudyDate=_DATE,
        SeriesDate=_DATE,
        ContentDate=_DATE,
        StudyTime="000000",
        SeriesTime="000000",
        ContentTime="000000",
        AccessionNumber="",
        ReferringPhysicianName="",
        Modality=how.modality,
        SeriesNumber=how.number,
        SeriesDescription=how.description,
        BodyPartExamined="ABDOMEN",
        Manufacturer="fedscan phantom",
        ManufacturerModelName="phantom",
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        BurnedInAnnotation="NO",
        PatientPosition="HFS",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
    )


def _pixels(data: Dataset, array: NDArray[np.int16], how: Acquisition) -> None:
    """Pixel data of frames `(X, Y, N)`; an offset makes them unsigned."""
    frames = np.ascontiguousarray(array.T)
    stored = (frames.astype(np.int32) + how.offset).astype(np.uint16 if how.offset else np.int16)
    if not np.array_equal(stored.astype(np.int32) - how.offset, frames):
        raise ValueError(f"an offset of {how.offset} does not make values from {frames.min()} on unsigned")
    data.Rows, data.Columns = frames.shape[1:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(how.offset == 0)
    data.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()


def _store(data: Dataset, syntax: str, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    if syntax != ExplicitVRLittleEndian:
        data.compress(syntax, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)


def _to_lps(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    lps: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return lps


def _orientation(place: NDArray[np.float64]) -> list[str]:
    """Directions of a growing column, then of a growing row index."""
    directions = place[:3, :2] / np.linalg.norm(place[:3, :2], axis=0)
    return _decimals(directions.T.ravel())


def _measures(place: NDArray[np.float64]) -> Dataset:
    across, down, between = (float(s) for s in np.linalg.norm(place[:3, :3], axis=0))
    # The distance of rows comes first (PS3.3 10.7.1.3).
    return _of(PixelSpacing=_decimals([down, across]), SliceThickness=_decimals([between])[0],
               SpacingBetweenSlices=_decimals([between])[0])  # fmt: skip


def _decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """As decimal strings of 16 characters at most (PS3.5 6.2)."""
    return [f"{float(v):.10f}"[:16] for v in values]


def _of(**attributes: object) -> Dataset:
    data = Dataset()
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return data
