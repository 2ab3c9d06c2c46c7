"""Small series, written by pydicom from arrays that are known, with any element changed; and their headers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from client.data.dicom.records import Frame, Header
from client.data.dicom.stacks import Entry
from common.seeds import generator

CT, MR, PT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128"))
MG, DX, CR = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("1.2.1", "1.1", "1"))

Change = Callable[[int, Dataset], None]


def smooth(shape: tuple[int, ...], low: int = -900, high: int = 1500) -> NDArray[np.int16]:
    """Values like a scan's: neighbours are alike. Slices on the first axis."""
    rng = generator(3, "series", *map(str, shape))
    field = rng.random(shape)
    for axis in range(len(shape)):
        field = sum(np.roll(field, n, axis) for n in range(3)) / 3
    field = (field - field.min()) / (field.max() - field.min())
    return (low + field * (high - low)).astype(np.int16)


def data_sets(array: NDArray[Any], *, modality: str = "CT", step: float = 2.5, syntax: UID = ExplicitVRLittleEndian,
              change: Change | None = None) -> list[Dataset]:  # fmt: skip
    """One data set per slice of `array` (slices, rows, columns); `change` is called with number and data set."""
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    sets = []
    for number, values in enumerate(array):
        data = Dataset()
        data.SOPClassUID = {"CT": CT, "MR": MR, "PT": PT, "MG": MG, "DX": DX, "CR": CR}[modality]
        data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality, data.PatientID, data.PatientName = modality, "canary-17", "Canary^Carla"
        data.InstanceNumber = number + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Rows, data.Columns, data.SamplesPerPixel = *values.shape, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        bits = values.dtype.itemsize * 8
        data.BitsAllocated = data.BitsStored = bits
        data.HighBit, data.PixelRepresentation = bits - 1, int(values.dtype.kind == "i")
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        if modality in ("CT", "MR", "PT"):
            data.ImagePositionPatient = [-10, -20, number * step - 30]
            data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            data.SliceThickness = step
        data.PixelSpacing = [0.75, 0.5]
        data.PixelData = np.ascontiguousarray(values).tobytes()
        data["PixelData"].VR = "OW" if bits > 8 else "OB"
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
        if change:
            change(number, data)
        sets.append(data)
    return sets


def write(sets: Sequence[Dataset], folder: Path) -> list[Path]:
    """The data sets as files whose names say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{(7 * n + 3) % 1009:04d}" for n in range(len(sets))]
    for path, data in zip(paths, sets, strict=True):
        data.save_as(path, enforce_file_format=True)
    return paths


def entry(number: int, z: float, *, series: str = "1.2.3", marks: dict[str, Any] | None = None,
          **changes: Any) -> Entry:  # fmt: skip
    """A file's header as a child process would give it, for tests of what is made of headers."""
    fields: dict[str, Any] = {
        "position": (0.0, 0.0, z), "orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "spacing": (1.0, 1.0),
        "thickness": 2.0, "marks": {"number": float(number), **(marks or {})},
    }  # fmt: skip
    fields |= {key: changes.pop(key) for key in list(changes) if key in Frame.model_fields}
    whole: dict[str, Any] = {
        "kind": "image", "syntax": "1.2.840.10008.1.2.1", "sop_class": CT, "instance": f"1.2.3.{number + 1}",
        "series": series, "study": "1.2", "modality": "CT", "patient": "p", "rows": 8, "columns": 8,
        "photometric": "MONOCHROME2", "allocated": 16, "stored": 16, "high": 15, "signed": True,
        "frames": (Frame(**fields),), **changes,
    }  # fmt: skip
    return Entry(Path(f"/scans/{(37 * number) % 101:03d}"), 1, 1, Header(**whole))
