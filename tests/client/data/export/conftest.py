"""A patient's CT with SEG and contours, made on the spot, and a site that exports."""

from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from client.data.dicom.workers import Workers
from client.data.export.run import ExportOptions, Record, export
from client.data.named import NamedLabels
from client.data.volume import Case, Stack
from client.site import SiteConfig

ROOT = "1.2.826.0.1.3680043.10.99"
SLICES, ROWS, COLUMNS = 4, 6, 8
Change = Callable[[Dataset], None]


def uid(*parts: int) -> str:
    return ".".join([ROOT, *map(str, parts)])


def of(**attributes: object) -> Dataset:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def save(data: Dataset, path: Path) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def ct_slice(number: int, patient: int = 1) -> Dataset:
    """One slice of a thorax with 12 bits of random values."""
    pixels = np.random.default_rng([patient, number]).integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
    return of(
        SOPClassUID=CTImageStorage, SOPInstanceUID=uid(patient, 3, number), StudyInstanceUID=uid(patient, 1),
        SeriesInstanceUID=uid(patient, 2), FrameOfReferenceUID=uid(patient, 4), Modality="CT",
        PatientName=f"DOE^J{patient}", PatientID=f"MRN-{patient}", PatientBirthDate="19300102", PatientSex="F",
        PatientAge="095Y", StudyDate="20240229", StudyTime="101112", StudyID="S1", AccessionNumber="A1",
        ReferringPhysicianName="WHO^DR", Manufacturer="SIEMENS",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], InstanceNumber=number + 1, SeriesNumber=3, AcquisitionNumber=1,
        BodyPartExamined="CHEST", PatientPosition="HFS", PositionReferenceIndicator="", KVP="120",
        ImagePositionPatient=["-10.5", "-20.25", str(5 * number)], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=["0.7", "0.8"], SliceThickness="5", RescaleIntercept="-1024", RescaleSlope="1", SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", Rows=ROWS, Columns=COLUMNS, BitsAllocated=16, BitsStored=12,
        HighBit=11, PixelRepresentation=0, PixelData=pixels.tobytes(),
    )  # fmt: skip


def segmentation(slices: list[Dataset], patient: int = 1) -> Dataset:
    """A liver (columns 2 to 4) in the first two slices, and a structure with a name of its own."""
    mask = np.zeros((len(slices), ROWS, COLUMNS, 2), np.uint8)
    mask[:2, 1:4, 2:5, 0] = 1
    mask[1:, 4, 1:7, 1] = 1
    described = [
        hd.seg.SegmentDescription(
            number, name, codes.cid7150.AnatomicalStructure, kind, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name, kind in ((1, "Liver", codes.SCT.Liver), (2, "Lesion of Jane Doe", codes.SCT.Mass))
    ]
    return hd.seg.Segmentation(
        slices, mask, hd.seg.SegmentationTypeValues.BINARY, described, uid(patient, 5), 10, uid(patient, 6), 1,
        "Doe Clinic", "Model", "1", "serial-7", content_label="DOE",
    )  # fmt: skip


def contours(slices: list[Dataset], patient: int = 1) -> Dataset:
    """An RTSTRUCT with one square per slice."""
    images = [of(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=s.SOPInstanceUID) for s in slices]
    series = of(SeriesInstanceUID=slices[0].SeriesInstanceUID, ContourImageSequence=Sequence(images))
    study = of(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=slices[0].StudyInstanceUID,
        RTReferencedSeriesSequence=Sequence([series]),
    )  # fmt: skip
    frame = of(FrameOfReferenceUID=slices[0].FrameOfReferenceUID, RTReferencedStudySequence=Sequence([study]))
    drawn = [
        of(ContourImageSequence=Sequence([image]), ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4,
           ContourData=[str(v) for x, y in ((0, 0), (2, 0), (2, 2), (0, 2)) for v in (x, y, 5 * k)])
        for k, image in enumerate(images)
    ]  # fmt: skip
    roi = of(ROINumber=1, ReferencedFrameOfReferenceUID=slices[0].FrameOfReferenceUID, ROIName="Liver Dr Who")
    return of(
        SOPClassUID=RTStructureSetStorage, SOPInstanceUID=uid(patient, 7), SeriesInstanceUID=uid(patient, 8),
        StudyInstanceUID=slices[0].StudyInstanceUID, Modality="RTSTRUCT", PatientName="DOE^J1", PatientID="MRN-1",
        StructureSetLabel="DOE", StructureSetDate="20240301", StructureSetTime="120000", ROIInterpreter="WHO",
        ReferencedFrameOfReferenceSequence=Sequence([frame]), StructureSetROISequence=Sequence([roi]),
        ROIContourSequence=Sequence([of(ReferencedROINumber=1, ContourSequence=Sequence(drawn))]),
    )  # fmt: skip


def stack_of(files: list[Path], slices: list[Dataset], **changes: object) -> Stack:
    matrix = ((-0.8, 0.0, 0.0, 10.5), (0.0, -0.7, 0.0, 20.25), (0.0, 0.0, 5.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    parts: dict[str, object] = {
        "files": tuple(files), "frames": (0,) * len(files), "instances": tuple(str(s.SOPInstanceUID) for s in slices),
        "series": str(slices[0].SeriesInstanceUID), "study": str(slices[0].StudyInstanceUID),
        "frame_of_reference": (str(slices[0].FrameOfReferenceUID),), "matrix": matrix,
        "shape": (COLUMNS, ROWS, len(files)), "modality": "CT", "facts": {"body_part": "CHEST"},
    }  # fmt: skip
    return Stack(**{**parts, **changes})  # type: ignore[arg-type]


class Hospital:
    """Scans in one folder, a home in another; `export` writes to a third."""

    def __init__(self, root: Path, workers: Workers) -> None:
        self.scans, self.home, self.root, self.workers = root / "scans", root / "home", root, workers
        self.site = SiteConfig(name="oslo", data=self.scans)

    def patient(self, number: int = 1, label: str = "seg", change: Change = lambda _: None, **stack: object) -> Case:
        """A case on disk; `change` is applied to each slice just before it is written."""
        folder = self.scans / f"DOE_JANE_{number}"
        folder.mkdir(parents=True)
        slices = [ct_slice(k, number) for k in range(SLICES)]
        drawn = {"seg": segmentation, "rtstruct": contours}.get(label)
        path = folder / "label.dcm" if drawn else None
        if drawn and path:
            save(drawn(slices, number), path)
        files = [folder / f"IM{k}" for k in range(SLICES)]
        for data, file in zip(slices, files, strict=True):
            change(data)
            save(data, file)
        return Case(f"case-{number}", f"patient-{number}", (stack_of(files, slices, **stack),), path)

    def export(self, *cases: Case, to: str = "out", home: str = "", **options: object) -> tuple[Path, Record]:
        out = self.root / to
        place = self.root / home if home else self.home
        chosen = ExportOptions(**{"rules": NamedLabels(("liver",), {}, {}), **options})  # type: ignore[arg-type]
        return out, export(cases, out, self.site, chosen, home=place, workers=self.workers)


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


@pytest.fixture
def hospital(tmp_path: Path, workers: Workers) -> Hospital:
    return Hospital(tmp_path, workers)
