"""What the gate wants to know of a header, and which identifying attributes are filled. For child processes."""

from pydicom.dataset import Dataset

from client.data.dicom.elements import Elements, numbers, text, texts
from client.data.dicom.problems import Unreadable

_TEXTS = {
    "body_part": 0x00180015,
    "burned_in": 0x00280301,
    "contrast": 0x00180010,
    "conversion": 0x00080064,
    "identity_removed": 0x00120062,
    "laterality": 0x00200060,
    "manufacturer": 0x00080070,
    "model": 0x00081090,
    "patient_position": 0x00185100,
    "photometric": 0x00280004,
    "rescale_type": 0x00281054,
    "sop_class": 0x00080016,
    "units": 0x00541001,
    "view": 0x00185101,
    "visual_features": 0x00280302,
}
_NUMBERS = {
    "field_strength": (0x00180087, "DS"),
    "kvp": (0x00180060, "DS"),
    "number": (0x00200011, "IS"),
    "slice_thickness": (0x00180050, "DS"),
    "slope": (0x00281053, "DS"),
    "intercept": (0x00281052, "DS"),
    "window_centre": (0x00281050, "DS"),
    "window_width": (0x00281051, "DS"),
}
# Free texts, which may be in any character set.
_DECODED = {"protocol": 0x00181030, "study_description": 0x00081030}

# Attributes that name or can find a person (PS3.15 table E.1-1, action X, Z or D), by the keyword.
_IDENTIFYING = {
    0x00100010: "PatientName",
    0x00100020: "PatientID",
    0x00100030: "PatientBirthDate",
    0x00101000: "OtherPatientIDs",
    0x00101001: "OtherPatientNames",
    0x00101005: "PatientBirthName",
    0x00101040: "PatientAddress",
    0x00101060: "PatientMotherBirthName",
    0x00102154: "PatientTelephoneNumbers",
    0x00102180: "Occupation",
    0x00104000: "PatientComments",
    0x00080050: "AccessionNumber",
    0x00080080: "InstitutionName",
    0x00080081: "InstitutionAddress",
    0x00080090: "ReferringPhysicianName",
    0x00081048: "PhysiciansOfRecord",
    0x00081050: "PerformingPhysicianName",
    0x00081070: "OperatorsName",
    0x00321032: "RequestingPhysician",
}


def facts_of(dataset: Dataset, elements: Elements) -> dict[str, str | float]:
    """The facts of a header, by the keys of `volume.FACTS`; what it does not say is missing."""
    facts: dict[str, str | float] = {}
    for name, tag in _TEXTS.items():
        if value := text(elements, tag):
            facts[name] = value[:64]
    for name, (tag, vr) in _NUMBERS.items():
        try:
            values = numbers(elements, tag, vr)
        except Unreadable:
            continue  # What decides over the voxels is read again, and there an error counts.
        if values:
            facts[name] = values[0]
    if side := text(elements, 0x00200062):
        facts["laterality"] = side[:64]  # Of the picture: mammography says it here.
    if parts := texts(elements, 0x00080008):
        facts["image_type"] = "\\".join(parts)[:128]
    for name, tag in _DECODED.items():
        if value := decoded(dataset, tag):
            facts[name] = value
    facts["identifying"] = " ".join(name for tag, name in _IDENTIFYING.items() if texts(elements, tag))
    return facts


def decoded(dataset: Dataset, tag: int) -> str:
    """A free text in the character set of the data set, printable and at most 64 characters long."""
    if tag not in dataset:
        return ""
    value = str(dataset[tag].value or "")
    return "".join(c for c in value if c.isprintable()).strip()[:64]
