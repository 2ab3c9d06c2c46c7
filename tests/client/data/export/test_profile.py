"""The allow list against the Basic Profile's own table, and what options do to single attributes."""

import os
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.data.export import attributes as listed
from client.data.export.vocabulary import WORDS, is_number, maker

# What the table removes or empties and the list keeps: by an option that is then named in (0012,0064), or cleaned.
BY_OPTION = listed.CHARACTERISTICS | listed.DATES | listed.TIMES | set(listed.STRUCTURES)


def actions() -> dict[int, str]:
    found: dict[int, str] = {}
    action = ""
    for line in (Path(__file__).parent / "basic_profile.txt").read_text().splitlines()[1:]:
        if line.startswith(" "):
            found |= {int(tag, 16): action for tag in line.split()}
        else:
            action = line
    return found


def test_nothing_is_kept_that_the_basic_profile_removes() -> None:
    table = actions()
    assert len(table) > 600
    assert table[0x00100010] == "Z"
    kept = listed.NUMBERS | listed.CODES | set(WORDS) | {"Manufacturer", "LUTData"} | listed.CLASSES
    assert {name: table[tag_for_keyword(name) or 0] for name in kept if tag_for_keyword(name) in table} == {}
    sequences = {name: table[tag_for_keyword(name) or 0] for name in listed.SEQUENCES if tag_for_keyword(name) in table}
    # Their references are replaced (U), as the table allows.
    assert sequences == {"SourceImageSequence": "X/Z/U*", "ReferencedImageSequence": "X/Z/U*"}
    assert {table.get(tag_for_keyword(name) or 0, "U") for name in listed.UIDS} == {"U"}


def test_every_name_of_the_list_is_an_attribute_of_the_standard() -> None:
    names = BY_OPTION | listed.NUMBERS | listed.SEQUENCES | listed.CODES | listed.UIDS | listed.EMPTIES | set(WORDS)
    names |= set(listed.DUMMIES) | set(listed.ENHANCED_DUMMIES)
    assert [name for name in sorted(names) if tag_for_keyword(name) is None] == []


def exported(hospital: Any, change: Any = lambda _: None, **options: object) -> Dataset:
    out, _ = hospital.export(hospital.patient(label="", change=change), **options)
    return min(map(dcmread, out.rglob("*.dcm")), key=lambda d: int(d.InstanceNumber))


def codes_of(data: Dataset) -> list[str]:
    assert {item.CodingSchemeDesignator for item in data.DeidentificationMethodCodeSequence} == {"DCM"}
    return [item.CodeValue for item in data.DeidentificationMethodCodeSequence]


def test_basic_profile_says_so_and_keeps_nothing_of_the_patient(hospital: Any) -> None:
    data = exported(hospital)
    assert codes_of(data) == ["113100"]
    assert (data.PatientIdentityRemoved, data.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert data.PatientName == data.PatientID
    assert str(data.PatientID).startswith("P-")
    assert (data.PatientBirthDate, data.PatientSex, data.StudyDate, data.StudyTime) == ("", "", "", "")
    assert "PatientAge" not in data
    assert (data.Manufacturer, data.BodyPartExamined, data.KVP) == ("SIEMENS", "CHEST", 120)


def test_dates_are_shifted_by_one_number_of_days_per_patient(hospital: Any) -> None:
    def change(data: Dataset) -> None:
        data.AcquisitionDateTime, data.ContentDate = "20240302101112.5+0100", "20240310"

    data = exported(hospital, change, dates="shift")
    assert codes_of(data) == ["113100", "113107"]
    assert data.LongitudinalTemporalInformationModified == "MODIFIED"
    days = (date(2024, 2, 29) - date.fromisoformat(data.StudyDate)).days
    assert 1 <= days <= 3650
    assert (date(2024, 3, 10) - date.fromisoformat(data.ContentDate)).days == days
    assert (date(2024, 3, 2) - date.fromisoformat(data.AcquisitionDateTime[:8])).days == days
    assert (data.StudyTime, data.AcquisitionDateTime[8:], data.PatientBirthDate) == ("101112", "101112.5", "")


@pytest.mark.parametrize(("age", "kept"), [("095Y", "090Y"), ("090Y", "090Y"), ("089Y", "089Y"), ("003M", "003M")])
def test_characteristics_are_kept_on_demand_and_no_age_above_ninety(hospital: Any, age: str, kept: str) -> None:
    def change(data: Dataset) -> None:
        data.PatientAge, data.PatientWeight = age, "61.5"

    data = exported(hospital, change, characteristics=True)
    assert codes_of(data) == ["113100", "113108"]
    assert (data.PatientAge, data.PatientSex, data.PatientWeight) == (kept, "F", 61.5)


def test_codes_are_kept_in_the_words_of_their_dictionary_only(hospital: Any) -> None:
    def item(value: str, scheme: str) -> Dataset:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, "liver of Jane Doe"
        return code

    def change(data: Dataset) -> None:
        kinds = [("10200004", "SCT"), ("T-62000", "SRT"), ("12345678", "SCT"), ("DOE", "99JANE"), ("363346000", "SCT")]
        data.AnatomicRegionSequence = Sequence([item(*kind) for kind in kinds])

    data = exported(hospital, change, codes={"363346000": "Cancer"})
    found = [(i.CodeValue, i.CodingSchemeDesignator, i.CodeMeaning) for i in data.AnatomicRegionSequence]
    liver, tissue = ("10200004", "SCT", "Liver"), ("85756007", "SCT", "Tissue")
    assert found[:4] == [liver, liver, tissue, tissue]
    assert found[4][0] == "363346000"


def test_unknown_words_go_or_are_replaced_where_places_count(hospital: Any) -> None:
    def change(data: Dataset) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "JANE", "AXIAL"]
        data.ScanOptions, data.BodyPartExamined, data.Manufacturer = ["FS", "JANE"], "CHEST JANE", "Doe & Sons"

    data = exported(hospital, change)
    assert list(data.ImageType) == ["ORIGINAL", "PRIMARY", "OTHER", "AXIAL"]
    assert (data.ScanOptions, data.Manufacturer) == ("FS", "")
    assert "BodyPartExamined" not in data


def test_makers_and_numbers() -> None:
    assert maker("GE MEDICAL SYSTEMS, Milwaukee") == maker("ge") == "GE MEDICAL SYSTEMS"
    assert maker("Siemens Healthineers") == "SIEMENS"
    assert maker("Genentech") == maker("") == maker("Dr Philips") == ""
    assert all(map(is_number, ("1", "-1.5", "+.5", " 1e-3 ", "2.")))
    assert not any(map(is_number, ("", "1,5", "0x1", "nan", "1-2", "MRN1")))


@pytest.mark.full
@pytest.mark.parametrize("label", ["seg", "rtstruct"])
@pytest.mark.parametrize("options", [{}, {"dates": "shift", "characteristics": True}])
def test_a_validator_finds_no_error_that_was_not_there(hospital: Any, label: str, options: dict[str, object]) -> None:
    """dciodvfy of dicom3tools (Debian has it), in the path or named by DCIODVFY."""
    tool = os.environ.get("DCIODVFY") or shutil.which("dciodvfy")
    if not tool:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    case = hospital.patient(label=label)
    out, _ = hospital.export(case, **options)
    before = set.union(*(errors(tool, path) for path in (*case.images[0].files, case.label)))
    assert set.union(*(errors(tool, path) for path in out.rglob("*.dcm"))) - before == set()


def errors(tool: str, path: Path) -> set[str]:
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False, errors="replace")
    assert "Error - " in done.stderr + done.stdout or done.returncode == 0
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}
