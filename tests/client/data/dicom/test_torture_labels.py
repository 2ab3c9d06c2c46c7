"""Every defect of a SEG or a structure set is read right or refused with its finding.

The label is an array; it is written with highdicom and pydicom, spoilt, and read by ours.
"""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.data.dicom.scan import scan
from client.data.readers import read
from client.data.structures import open_structures
from common.errors import DataError
from tests.client.data.dicom.defects_labels import LABEL_DEFECTS, ORGANS, Drawn, Masks, draw
from tests.client.data.dicom.good import NAME, PATIENT, reasons

_NAMES = {"liver": ("Liver", "LIVER"), "kidneys": ("Kidneys", "Kidneys both")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.mark.parametrize("name", sorted(LABEL_DEFECTS))
def test_label(name: str, drawn: Drawn, tmp_path: Path) -> None:
    case = LABEL_DEFECTS[name]
    for number, data in enumerate(drawn.sets):
        (tmp_path / "series").mkdir(exist_ok=True)
        data.save_as(tmp_path / "series" / f"{number}.dcm")
    wanted = case.spoil(drawn, tmp_path / "label.dcm")
    (stack,), *_ = scan(tmp_path)
    volume = read(stack)
    codes, words = set[str](), ""
    found: Masks | None = None
    try:
        structures = open_structures(tmp_path / "label.dcm", stack, volume)
        numbers = {organ: [s.number for s in structures.segments if s.name in _NAMES[organ]] for organ in ORGANS}
        found = {organ: structures.mask(number) for organ, (number,) in numbers.items()}
        for note in structures.notes:
            codes.add(note.code)
            words += f"{note.what} {note.remedy}\n"
    except DataError as error:
        codes |= {code.removeprefix("dicom-") for code in reasons(error)}
        words += str(error)
    for secret in (PATIENT, NAME, "2.25.", "Traceback"):
        assert secret not in words
    if case.codes:
        assert codes & set(case.codes), f"not told: {codes}"
    if wanted is None:
        assert found is None, "read although it should not be"
        return
    assert found is not None, f"refused: {codes} {words}"
    for organ, mask in wanted.items():
        # The volume is turned to RAS+: columns and rows of the files run the other way.
        np.testing.assert_array_equal(found[organ], mask[::-1, ::-1], err_msg=organ)


def test_the_phantom_label_is_what_pydicom_reads(drawn: Drawn, tmp_path: Path) -> None:
    """The suite's own good file, without our reader: as many voxels of each organ as the array has."""
    LABEL_DEFECTS["seg-as-it-should-be"].spoil(drawn, tmp_path / "label.dcm")
    data = dcmread(tmp_path / "label.dcm")
    groups = data.PerFrameFunctionalGroupsSequence
    numbers = [int(g.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for g in groups]
    for value in (1, 2):
        frames = [frame for frame, number in zip(data.pixel_array, numbers, strict=True) if number == value]
        assert sum(int(f.sum()) for f in frames) == int((drawn.label == value).sum())
