"""What kind of picture a DICOM image is: a slice of a volume, a projection, or nothing for us."""

from enum import Enum

from client.data.dicom.records import Header

# Modalities (0008,0060) whose pictures are projections: they have no place along a normal.
PROJECTIONS = ("MG", "DX", "CR", "XA", "RF", "IO", "PX", "RG")
# Modalities whose pictures are never slices of the body or projections through it that a diagnosis is made on.
_NEVER = ("US", "IVUS", "ES", "XC", "GM", "SM", "OP", "OPT", "OAM", "DOC", "ECG", "HD", "SC", "KO", "PR", "SR",
          "RTDOSE", "RTIMAGE")  # fmt: skip
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


class Kind(Enum):
    """What is made of an image; all but the first two are left out, with a finding of this value as its code."""

    SLICES = "slices"
    PICTURE = "picture"
    COLOUR = "dicom-colour"
    FILM = "dicom-film"
    LOCALISER = "dicom-localiser"
    MOSAIC = "dicom-mosaic"
    SECONDARY = "dicom-secondary-capture"
    BITS = "dicom-bits"
    OTHER = "dicom-modality"


def kind_of(header: Header) -> Kind:
    """The kind of an image."""
    words = str(header.facts.get("image_type", "")).upper().split("\\")
    placed = bool(header.frames and header.frames[0].position and header.frames[0].orientation)
    secondary = header.sop_class == _SECONDARY or header.sop_class.startswith(_SECONDARY + ".")
    if header.modality in _NEVER:
        return Kind.SECONDARY if header.modality == "SC" else Kind.OTHER
    if header.samples != 1 or header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return Kind.SECONDARY if secondary else Kind.COLOUR
    if secondary and not placed:
        return Kind.SECONDARY
    if "LOCALIZER" in words:
        return Kind.LOCALISER
    if "MOSAIC" in words:
        return Kind.MOSAIC
    if not (header.floating or header.allocated in (8, 16, 32)):
        return Kind.BITS
    if not placed and len(header.frames) > 1:
        return Kind.FILM
    if header.modality in PROJECTIONS and not placed:
        return Kind.PICTURE
    return Kind.SLICES
