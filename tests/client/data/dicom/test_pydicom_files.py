"""Every file that pydicom brings for its own tests: read or refused with a reason, and read as pydicom reads it."""

import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from client.data.dicom.scan import scan
from client.data.readers import read
from common.errors import DataError
from tests.client.data.dicom.good import reasons
from tests.client.data.dicom.mutate import SAMPLES

# By the newest pydicom 3.0: other releases may bring other files.
VERSION = "3.0.2"
COUNTS = {
    "read": 41,
    "listed: other": 56,
    "listed: seg": 2,
    "listed: rtstruct": 1,
    "not DICOM": 11,
    "refused: dicom-secondary-capture": 30,
    # Without series or class (fragments, directories under other names); two that are cut off.
    "refused: dicom-damaged": 18,
    "refused: dicom-modality": 11,  # doses among them: they have slices, but are no scans
    "refused: dicom-localiser": 2,
    "refused: dicom-not-dicom": 2,
    "refused: dicom-header": 1,
    "refused: dicom-transfer-syntax": 1,
}


def result(folder: Path) -> tuple[str, list[np.ndarray]]:
    """What a scan of a folder with one file comes to, and the volumes."""
    stacks, items, findings = scan(folder)
    if not stacks and not items:
        return f"refused: {findings[0].code}" if findings else "not DICOM", []
    try:
        arrays = [read(stack).array for stack in stacks]
    except DataError as error:
        return f"refused: {reasons(error)[0]}", []
    return ("read" if arrays else f"listed: {items[0].kind}"), arrays


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether both hold the same values, in whatever order of the axes, to float32."""
    return ours.size == theirs.size and np.allclose(np.sort(ours.ravel()), np.sort(theirs.ravel()), rtol=1e-6, atol=0)


def by_pydicom(path: Path) -> np.ndarray:
    """The same file by pydicom alone: decoded, rescaled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in data.file_meta:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        pixels = data.pixel_array.astype(np.float64)
    if data.Modality == "CR" and data.PhotometricInterpretation == "MONOCHROME1":
        pixels = 2**data.BitsStored - 1 - pixels  # ours: dense is bright in all projections
    lossless = data.file_meta.TransferSyntaxUID != pydicom.uid.JPEG2000
    if data.Modality == "CT" and "PixelPaddingValue" in data and lossless:
        padded = pixels == data.PixelPaddingValue
        pixels[padded] = pixels[~padded].min()  # ours: no value stands for "nothing here"
    return pixels * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))


@pytest.mark.skipif(pydicom.__version__ != VERSION, reason=f"the counts are those of pydicom {VERSION}")
def test_each_file_alone(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    differ = []
    for number, path in enumerate(sorted(p for p in SAMPLES.rglob("*") if p.is_file())):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(path, folder)
        words, arrays = result(folder)
        counts[words] += 1
        if arrays and not same(arrays[0], by_pydicom(path)):
            differ.append(path.name)
    assert not differ
    assert dict(counts) == COUNTS


def test_all_of_them_in_one_folder() -> None:
    stacks, items, findings = scan(SAMPLES)
    assert len(stacks) > 10
    assert len(items) > 10
    words = [f"{f.what} {f.remedy}" for f in findings]
    for stack in stacks:
        try:
            read(stack)
        except DataError as error:
            words.append(str(error))
    for secret in ("CompressedSamples", "Traceback", "1.3.6.1.4.1"):
        assert not [w for w in words if secret in w]
