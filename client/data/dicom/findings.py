"""What is said of DICOM that is left out or odd. Texts name folders and numbers, never a UID or what a header says."""

from collections.abc import Sequence
from pathlib import Path

from client.data.dicom.kinds import Kind
from client.data.dicom.problems import AGAIN, REASONS, REMEDIES
from client.data.volume import Finding

_LEFT_OUT = {
    Kind.COLOUR: ("colour pictures", "Only grey images are read; choose the original series."),
    Kind.FILM: ("films (frames without a place in the patient)", "Choose a series of slices or single pictures."),
    Kind.LOCALISER: ("localisers", "Nothing: they only show where the other series lie."),
    Kind.MOSAIC: ("mosaics (all slices of a volume in one picture)",
                  "Export the series as enhanced MR or as single slices, or convert it with dcm2niix."),
    Kind.SECONDARY: ("secondary captures", "Choose the original series: captures have no geometry, and often names."),
    Kind.BITS: ("images with pixels of 1 or 64 bits", "Export them with 8, 16 or 32 bits per pixel."),
    Kind.OTHER: ("images of a modality that is not read (ultrasound, photographs, …)",
                 "Read are CT, MR, PT and what lies in space as they do, MG, DX, CR, XA and RF."),
}  # fmt: skip


def refused(reason: str, what: str, files: Sequence[Path], case: str = "") -> Finding:
    """`dicom-damaged`, `dicom-header`, `dicom-transfer-syntax`, `dicom-too-large`, …: files that cannot be read."""
    remedy = REMEDIES.get(reason, AGAIN)
    details = f" ({what})" if what else ""
    return Finding(f"dicom-{reason}", "error", case, f"{_some(files)}: {REASONS[reason]}{details}", remedy)


def left_out(kind: Kind, case: str, file: Path, count: int) -> Finding:
    """`dicom-colour`, `-film`, `-localiser`, `-mosaic`, `-secondary-capture`, `-bits`, `-modality`: left out."""
    what, remedy = _LEFT_OUT[kind]
    severity = "warning" if kind in (Kind.MOSAIC, Kind.BITS, Kind.FILM) else "info"
    return Finding(kind.value, severity, case, f"{file.parent}: {count} {what} left out", remedy)


def copies(case: str, file: Path, count: int) -> Finding:
    """`dicom-copies`: the same instance lies there several times; one is taken."""
    what = f"{file.parent}: {count} file(s) hold an instance that another file holds too"
    return Finding("dicom-copies", "info", case, what, "Nothing; delete the copies if they are not wanted.")


def same_instance(case: str, file: Path, count: int) -> Finding:
    """`dicom-same-instance`: different images with one SOP instance UID; all are taken."""
    what = f"{file.parent}: {count} image(s) have the instance UID of another image"
    remedy = "Labels that refer to instances may meet the wrong slice. Have the software corrected that wrote them."
    return Finding("dicom-same-instance", "warning", case, what, remedy)


def several(case: str, file: Path, names: Sequence[str], mark: str) -> Finding:
    """`dicom-several-volumes`: a series holds several; `dicom-split-by-number`: only the instance number tells them."""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    what = f"{file.parent}: one series with {len(names)} images or volumes: {shown}"
    if mark == "number":
        remedy = "Compare with a viewer: no attribute but the instance number tells them apart, and it may be wrong."
        return Finding("dicom-split-by-number", "warning", case, what, remedy)
    remedy = "Choose by its name in site.yaml: series: {image: {volume: NAME}}."
    return Finding("dicom-several-volumes", "info", case, what, remedy)


def mixed(case: str, file: Path, labels: Sequence[str]) -> Finding:
    """`dicom-mixed-series`: one series with several orientations or sizes; each is a volume of its own."""
    shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    what = f"{file.parent}: one series with {len(labels)} orientations or sizes: {shown}"
    return Finding("dicom-mixed-series", "warning", case, what, "Choose by name in site.yaml, or leave the series out.")


def no_position(case: str, file: Path, count: int, of: int) -> Finding:
    """`dicom-no-position`: position, orientation or pixel size are not in the header; the series is left out."""
    what = f"{file.parent}: {count} of {of} slices have no position, orientation or pixel size"
    return Finding("dicom-no-position", "error", case, what, "Have the original series exported, not a derived one.")


def bad_orientation(case: str, file: Path, count: int) -> Finding:
    """`dicom-orientation`: rows and columns are no right angle, or their direction cosines no unit vectors."""
    what = f"{file.parent}: {count} slices with direction cosines that are no right angle of unit vectors"
    return Finding("dicom-orientation", "error", case, what, AGAIN)


def doubled(case: str, file: Path, count: int, of: int) -> Finding:
    """`dicom-duplicate-slice`: several slices at one place, and nothing tells them apart."""
    what = f"{file.parent}: {count} of {of} slices lie where another one lies, and nothing in the headers tells which"
    remedy = "Remove the slices that are doubled, or have the series sent again (files may be missing of one volume)."
    return Finding("dicom-duplicate-slice", "error", case, what, remedy)


def missing(case: str, file: Path, count: int, step: float) -> Finding:
    """`dicom-missing-slice`: gaps as wide as one or more slices."""
    what = f"{file.parent}: {count} slice(s) are missing between the others (mean distance {step:.3g} mm)"
    return Finding("dicom-missing-slice", "error", case, what, AGAIN)


def uneven(case: str, file: Path, off: float, severity: str) -> Finding:
    """`dicom-uneven-slices`: slices lie off their places; from 1 % of the distance a warning, from 10 % an error."""
    what = f"{file.parent}: a slice lies {100 * off:.2g} % of the slice distance off its place"
    remedy = "Have a reconstruction with constant distances exported, or resample the series."
    return Finding("dicom-uneven-slices", severity, case, what, remedy)


def scattered(case: str, file: Path, shift: float) -> Finding:
    """`dicom-shifted-slices`: slices are moved within their planes, each by another amount."""
    what = f"{file.parent}: slices are moved within their planes by up to {shift:.3g} mm"
    return Finding("dicom-shifted-slices", "error", case, what, "Have a reconstruction of one field of view exported.")


def tilted(case: str, file: Path, drift: float) -> Finding:
    """`dicom-gantry-tilt`: the stack is sheared; it is refused, as all that follows takes axes for right angles."""
    what = f"{file.parent}: the stack is tilted: its last slice is moved by {drift:.3g} mm against the first"
    remedy = "Have the tilt corrected by the scanner's or the PACS' software, or convert the series with dcm2niix."
    return Finding("dicom-gantry-tilt", "error", case, what, remedy)


def shorter(case: str, file: Path, count: int, most: int) -> Finding:
    """`dicom-incomplete-volume`: another volume of the series has more slices."""
    what = f"{file.parent}: a volume with {count} slices beside one with {most}"
    return Finding("dicom-incomplete-volume", "warning", case, what, AGAIN)


def other_gap(case: str, file: Path, claimed: float, step: float) -> Finding:
    """`dicom-spacing-tag`: the header's distance between slices is not that of their positions, which count."""
    what = f"{file.parent}: slices lie {step:.4g} mm apart, the header says {claimed:.4g}"
    remedy = "Compare with a viewer; if every other slice is missing, have the series sent again."
    return Finding("dicom-spacing-tag", "warning", case, what, remedy)


def no_thickness(case: str, file: Path) -> Finding:
    """`dicom-no-thickness`: a single slice whose thickness is not in the header; it counts as 1 mm."""
    what = f"{file}: a single slice without a thickness; it counts as 1 mm thick"
    return Finding("dicom-no-thickness", "warning", case, what, "Nothing for a study of pictures.")


def absurd(case: str, file: Path, step: float, count: int) -> Finding:
    """`dicom-absurd-volume`: a slice distance or a size that no scan has."""
    what = f"{file.parent}: {count} slices with {step:.3g} mm from one to the next"
    return Finding("dicom-absurd-volume", "error", case, what, "Check the positions in the headers, or leave it out.")


def outside(files: Sequence[Path]) -> Finding:
    """`dicom-link-outside`: links that lead out of the folder are not followed."""
    remedy = "Point `data` to where the files lie, or copy them."
    what = f"{_some(files)}: leads out of the folder; not followed"
    return Finding("dicom-link-outside", "warning", "", what, remedy)


def archive(file: Path, what: str) -> Finding:
    """`dicom-archive`: a zip file that is not unpacked."""
    return Finding("dicom-archive", "error", "", f"{file}: {what}", "Unpack it yourself, and remove the archive.")


def _some(files: Sequence[Path]) -> str:
    shown = ", ".join(str(file) for file in files[:3])
    return shown if len(files) <= 3 else f"{shown} and {len(files) - 3} more"
