"""What one export asks of the children that clean DICOM files: plain values, so that they travel as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from client.data.named import NamedLabels

Dates = Literal["remove", "shift"]


@dataclass(frozen=True)
class ExportOptions:
    """What an export keeps beyond the Basic Profile, and what the site answers for.

    Attributes:
        dates: `shift` puts all dates of a patient back by one secret number of days (1 to 3650) and keeps times;
            `remove` keeps none. SUV of PET needs `shift`.
        characteristics: Keep sex, age (above 89: 90), size and weight.
        faces: Scans that may show a face leave, too, as they are.
        inspected: Somebody has looked at the doubtful images (ultrasound, secondary captures, derived ones) and there
            is no text in them. What says of itself that it has text stays in any case.
        rules: How the site maps its structures to the study's labels: the copy names them as the study does.
        codes: SNOMED CT codes of the study -> meaning.
    """

    dates: Dates = "remove"
    characteristics: bool = False
    faces: bool = False
    inspected: bool = False
    rules: NamedLabels = field(default_factory=lambda: NamedLabels((), {}, {}))
    codes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """How the DICOM files of one case are cleaned.

    Attributes:
        secret: Hex digits of the key of the site's pseudonyms.
        patient: Stands for patient name and ID.
        days: By how many days dates are put back; 0 removes dates and times.
        characteristics: Keep sex, age (90 at most), size and weight.
        inspected: Somebody has looked at the pixels of doubtful images and found no text in them.
        structures: Number of a segment or ROI -> the study's label to which it belongs and that label's SNOMED CT code
            (or an empty text); the others get a number for a name.
        codes: SNOMED CT codes that may be kept, with their meaning.
        known: UIDs of the instances, series, studies and frames of reference that the case exports.
        software: Name and version of what does this.
    """

    secret: str
    patient: str
    days: int
    characteristics: bool
    inspected: bool
    structures: dict[str, list[str]]
    codes: dict[str, str]
    known: tuple[str, ...]
    software: str

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The inverse of `values`."""
        return cls(**{**values, "known": tuple(values["known"])})


# Codes of PS3.16 CID 7050 for (0012,0064), with their meaning there.
BASIC = ("113100", "DCM", "Basic Application Confidentiality Profile")
CLEAN_DESCRIPTORS = ("113105", "DCM", "Clean Descriptors Option")
MODIFIED_DATES = (
    "113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option",
)  # fmt: skip
CHARACTERISTICS = ("113108", "DCM", "Retain Patient Characteristics Option")
