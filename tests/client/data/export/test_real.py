"""Public DICOM sets exported and read again by our own reader: equal voxels, places and segments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data.dicom.scan import scan
from client.data.dicom_layout import dicom_cases
from client.data.readers import read
from client.data.volume import Case

SETS = (
    "dicom-seg-rtstruct-small/dcmqi-ct-liver",
    "dicom-seg-rtstruct-small/dcmqi-23x38x3/multiframe",
    "dicom-seg-rtstruct-small/rt-utils/mock_data",
    "cardiac-mr-dicom/SCD0000201",
    "prostate-mr-study-dicom",
)


def cases_in(folder: Path) -> list[Case]:
    """One case per volume, also of sets whose segmentations are ambiguous."""
    found = scan(folder)
    cases, _ = dicom_cases(found, {}, ())
    return cases or [Case(stack.id, stack.patient, (stack,), None) for stack in found.stacks]


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_exported_sets_read_as_before(hospital: Any, fedscan_data: Path, name: str) -> None:
    hospital.scans.mkdir()
    cases = cases_in(fedscan_data / name)
    assert cases
    out, record = hospital.export(*cases, inspected=True, faces=True)
    assert record.left_out == {}
    whole = {fingerprint(read(case.images[0])) for case in cases}
    again = {fingerprint(read(stack)) for stack in scan(out).stacks}
    assert whole == again


def fingerprint(volume: Any) -> tuple[bytes, tuple[float, ...]]:
    return volume.array.astype(np.float64).tobytes(), tuple(np.round(volume.affine, 6).ravel())
