"""What is said of one DICOM file or series that is left out or odd; what its code stands for is in the table.

Texts name folders and numbers, never a UID or what a header says.
"""

from collections.abc import Sequence
from pathlib import Path

from client.data.dicom.kinds import Kind
from client.data.dicom.problems import REASONS
from client.data.gate.codes_dicom import FILES, KINDS, VOLUMES
from client.data.volume import Finding

_TABLE = FILES | KINDS | VOLUMES
_LEFT_OUT = {
    Kind.COLOUR: "colour pictures",
    Kind.FILM: "films (frames without a place in the patient)",
    Kind.LOCALISER: "localisers",
    Kind.MOSAIC: "mosaics (all slices of a volume in one picture)",
    Kind.SECONDARY: "secondary captures",
    Kind.BITS: "images with pixels of 1 or 64 bits",
    Kind.OTHER: "images of a modality that is not read (ultrasound, photographs, …)",
}


def refused(reason: str, what: str, files: Sequence[Path], case: str = "") -> Finding:
    """`dicom-damaged`, `dicom-header`, `dicom-transfer-syntax`, `dicom-too-large`, …: files that cannot be read."""
    details = f" ({what})" if what else ""
    return _finding(f"dicom-{reason}", case, f"{_some(files)}: {REASONS[reason]}{details}")


def left_out(kind: Kind, case: str, file: Path, count: int) -> Finding:
    """`dicom-colour`, `-film`, `-localiser`, `-mosaic`, `-secondary-capture`, `-bits`, `-modality`: left out."""
    return _finding(kind.value, case, f"{file.parent}: {count} {_LEFT_OUT[kind]} left out")


def copies(case: str, file: Path, count: int) -> Finding:
    """`dicom-copies`: the same instance lies there several times; one is taken."""
    what = f"{file.parent}: {count} file(s) hold an instance that another file holds too"
    return _finding("dicom-copies", case, what)


def same_instance(case: str, file: Path, count: int) -> Finding:
    """`dicom-same-instance`: different images with one SOP instance UID; all are taken."""
    what = f"{file.parent}: {count} image(s) have the instance UID of another image"
    return _finding("dicom-same-instance", case, what)


def several(case: str, file: Path, names: Sequence[str], mark: str) -> Finding:
    """`dicom-several-volumes`: a series holds several; `dicom-split-by-number`: only the instance number tells them."""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    what = f"{file.parent}: one series with {len(names)} images or volumes: {shown}"
    if mark == "number":
        return _finding("dicom-split-by-number", case, what)
    return _finding("dicom-several-volumes", case, what)


def mixed(case: str, file: Path, labels: Sequence[str]) -> Finding:
    """`dicom-mixed-series`: one series with several orientations or sizes; each is a volume of its own."""
    shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    what = f"{file.parent}: one series with {len(labels)} orientations or sizes: {shown}"
    return _finding("dicom-mixed-series", case, what)


def no_position(case: str, file: Path, count: int, of: int) -> Finding:
    """`dicom-no-position`: position, orientation or pixel size are not in the header; the series is left out."""
    what = f"{file.parent}: {count} of {of} slices have no position, orientation or pixel size"
    return _finding("dicom-no-position", case, what)


def bad_orientation(case: str, file: Path, count: int) -> Finding:
    """`dicom-orientation`: rows and columns are no right angle, or their direction cosines no unit vectors."""
    what = f"{file.parent}: {count} slices with direction cosines that are no right angle of unit vectors"
    return _finding("dicom-orientation", case, what)


def doubled(case: str, file: Path, count: int, of: int) -> Finding:
    """`dicom-duplicate-slice`: several slices at one place, and nothing tells them apart."""
    what = f"{file.parent}: {count} of {of} slices lie where another one lies, and nothing in the headers tells which"
    return _finding("dicom-duplicate-slice", case, what)


def missing(case: str, file: Path, count: int, step: float) -> Finding:
    """`dicom-missing-slice`: gaps as wide as one or more slices."""
    what = f"{file.parent}: {count} slice(s) are missing between the others (mean distance {step:.3g} mm)"
    return _finding("dicom-missing-slice", case, what)


def uneven(case: str, file: Path, off: float, severity: str) -> Finding:
    """`dicom-uneven-slices`: slices lie off their places; from 1 % of the distance a warning, from 10 % an error."""
    what = f"{file.parent}: a slice lies {100 * off:.2g} % of the slice distance off its place"
    return _finding("dicom-uneven-slices", case, what, severity)


def scattered(case: str, file: Path, shift: float) -> Finding:
    """`dicom-shifted-slices`: slices are moved within their planes, each by another amount."""
    what = f"{file.parent}: slices are moved within their planes by up to {shift:.3g} mm"
    return _finding("dicom-shifted-slices", case, what)


def tilted(case: str, file: Path, drift: float) -> Finding:
    """`dicom-gantry-tilt`: the stack is sheared; it is refused, as all that follows takes axes for right angles."""
    what = f"{file.parent}: the stack is tilted: its last slice is moved by {drift:.3g} mm against the first"
    return _finding("dicom-gantry-tilt", case, what)


def shorter(case: str, file: Path, count: int, most: int) -> Finding:
    """`dicom-incomplete-volume`: another volume of the series has more slices."""
    what = f"{file.parent}: a volume with {count} slices beside one with {most}"
    return _finding("dicom-incomplete-volume", case, what)


def other_gap(case: str, file: Path, claimed: float, step: float) -> Finding:
    """`dicom-spacing-tag`: the header's distance between slices is not that of their positions, which count."""
    what = f"{file.parent}: slices lie {step:.4g} mm apart, the header says {claimed:.4g}"
    return _finding("dicom-spacing-tag", case, what)


def no_thickness(case: str, file: Path) -> Finding:
    """`dicom-no-thickness`: a single slice whose thickness is not in the header; it counts as 1 mm."""
    what = f"{file}: a single slice without a thickness; it counts as 1 mm thick"
    return _finding("dicom-no-thickness", case, what)


def absurd(case: str, file: Path, step: float, count: int) -> Finding:
    """`dicom-absurd-volume`: a slice distance or a size that no scan has."""
    what = f"{file.parent}: {count} slices with {step:.3g} mm from one to the next"
    return _finding("dicom-absurd-volume", case, what)


def outside(files: Sequence[Path]) -> Finding:
    """`dicom-link-outside`: links that lead out of the folder are not followed."""
    what = f"{_some(files)}: leads out of the folder; not followed"
    return _finding("dicom-link-outside", "", what)


def archive(file: Path, what: str) -> Finding:
    """`dicom-archive`: a zip file that is not unpacked."""
    return _finding("dicom-archive", "", f"{file}: {what}")


def _finding(code: str, case: str, what: str, severity: str = "") -> Finding:
    """As the table says, unless this one is worse or better."""
    known = _TABLE[code]
    return Finding(code, severity or known.severity, case, what, known.remedy)


def _some(files: Sequence[Path]) -> str:
    shown = ", ".join(str(file) for file in files[:3])
    return shown if len(files) <= 3 else f"{shown} and {len(files) - 3} more"
