"""What a DICOM header says of a person, as keywords and yes or no: values stay in the child. The task `privacy`."""

from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from client.data.dicom.problems import Unreadable
from client.data.export.opened import open_file
from client.data.gate.patterns import kinds_in, repeats

# Attributes that name or find a person (PS3.15 table E.1-1: X, Z or D).
PERSON = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientBirthName", "PatientMotherBirthName", "OtherPatientIDs",
    "OtherPatientNames", "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "AccessionNumber",
    "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "StationName", "DeviceSerialNumber",
)  # fmt: skip
# Those of them that are looked for in paths and descriptions.
_SOUGHT = ("PatientName", "PatientID", "PatientBirthDate", "PatientBirthName", "OtherPatientIDs", "OtherPatientNames",
           "AccessionNumber")  # fmt: skip
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "StudyComments",
                 "RequestedProcedureDescription", "AdditionalPatientHistory")  # fmt: skip
# Kinds of images that often show text (PS3.15 E.3.1).
_TEXT_LIKELY = frozenset({"US", "SC", "OT", "XC", "ES", "RF", "XA", "NM"})
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SCREENS = frozenset({"SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE", "SCREEN"})


def privacy(paths: list[str], root: str) -> dict[str, Any]:
    """What the headers of `paths` say.

    Args:
        paths: DICOM files.
        root: What lies above it says nothing of a patient.

    Returns:
        `files`, one per path: `person` (keywords that are filled), `path` (keywords that stand in the path below
        `root`), `texts` (descriptions that name a person), `private` (number of private elements), `text`
        ("yes", "unknown" or "") and `screen`. Of a file that cannot be read it is empty.
    """
    return {"files": [_one(Path(path), Path(root)) for path in paths]}


def _one(path: Path, root: Path) -> dict[str, Any]:
    try:
        data = open_file(path, pixels=False)
        return _told(data, path, root)
    except (Unreadable, OSError):
        return {}
    except Exception:  # noqa: BLE001 - the readers say what is wrong with it; here it is passed over
        return {}


def _told(data: Dataset, path: Path, root: Path) -> dict[str, Any]:
    below = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    removed = str(data.get("PatientIdentityRemoved", "")).strip() == "YES"
    sought = [] if removed else [name for name in _SOUGHT if _filled(data, name)]
    values = [str(data[name].value) for name in sought]
    texts = [name for name in _DESCRIPTIONS if _filled(data, name)]
    return {
        "person": [] if removed else [name for name in PERSON if _filled(data, name)],
        "path": [name for name in sought if repeats(below, [str(data[name].value)])],
        "texts": [n for n in texts if repeats(str(data[n].value), values) or "name" in kinds_in(str(data[n].value))],
        "private": sum(1 for tag in data.keys() if tag.is_private),  # noqa: SIM118 - the data set yields elements
        "text": _text(data),
        "screen": _is_screen(data),
    }


def _filled(data: Dataset, name: str) -> bool:
    return name in data and bool(str(data[name].value or "").strip(" \0^"))


def _text(data: Dataset) -> str:
    """Whether there is text in the pixels: what (0028,0301) says, and where it says nothing how likely it is."""
    burned = str(data.get("BurnedInAnnotation", "")).strip()
    if burned == "YES":
        return "yes"
    likely = str(data.get("Modality", "")) in _TEXT_LIKELY or _is_screen(data)
    return "unknown" if likely and burned != "NO" else ""


def _is_screen(data: Dataset) -> bool:
    types = data.get("ImageType") or []
    words = {str(word).strip() for word in ([types] if isinstance(types, str) else types)}
    return str(data.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE) or bool(words & _SCREENS)
