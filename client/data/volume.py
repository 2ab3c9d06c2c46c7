"""A scan in memory, in one convention: RAS+ axes, millimetres."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Volume:
    """An image or a label map with its place in the patient.

    Attributes:
        array: `(C, X, Y, Z)` for volumes, `(C, H, W)` for pictures.
        affine: `(4, 4)` voxel index -> RAS+ mm; for pictures the identity with the pixel size, if known.
    """

    array: NDArray[np.generic]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm, one number per spatial axis."""
        n = self.array.ndim - 1
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)[:n])


# What a stack remembers of its header for the gate; a key is missing where the file does not say.
FACTS = (
    "body_part", "burned_in", "contrast", "conversion", "field_strength", "identifying",
    "identity_removed", "image_type", "intercept", "kvp", "laterality", "manufacturer", "model", "number",
    "patient_position", "photometric", "protocol", "rescale_type", "slice_thickness", "slope", "sop_class",
    "study_description", "transfer_syntax", "units", "view", "visual_features", "window_centre", "window_width",
)  # fmt: skip


def local_id(series: str, name: str) -> str:
    """12 hex digits for a volume of a series, which say nothing of its UID."""
    return hashlib.sha256(f"{series}\x1f{name}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Stack:
    """One volume of a DICOM series (or one picture), described but not read.

    Voxel (i, j, k) of a stack is column i, row j of slice k, as the files store it; `readers.read` gives the same
    voxels with the axes turned to the nearest RAS+ order.

    Attributes:
        files: The file of each slice, ascending along the normal (row direction × column direction). A multi-frame
            file is repeated, once per slice.
        frames: The 0-based frame of each slice in its file; 0 for single frames.
        instances: The SOP instance UID of each slice.
        series: Series instance UID. As all UIDs here, it never leaves the site and is never printed.
        study: Study instance UID.
        frame_of_reference: The distinct frame-of-reference UIDs of the slices, in their order. Some scanners give
            each slice one of its own.
        matrix: Rows of the `(4, 4)` affine, voxel (i, j, k) -> RAS+ mm. For a picture diag(row, column spacing, 1, 1).
        shape: (columns, rows, slices); (rows, columns) for a picture (mammography, X-ray).
        modality: CT, MR, PT, MG, DX, CR, XA, RF or another value of (0008,0060).
        description: The series description: free text that may name anything.
        patient: Local id: 12 hex digits of SHA-256 over patient ID and its issuer.
        name: What tells this volume from the others of its series ("b=50", "t=3", "echo=2"); empty if it is alone.
        facts: What the header says of itself, by the keys of `FACTS`.
        sizes: Size in bytes and modification time in ns of each slice's file, when its header was read.
        dtype: That holds all voxels: int16 or int32 where slopes and intercepts are whole, else float32.
    """

    files: tuple[Path, ...]
    frames: tuple[int, ...]
    instances: tuple[str, ...]
    series: str
    study: str
    frame_of_reference: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    shape: tuple[int, ...]
    modality: str
    description: str = ""
    patient: str = ""
    name: str = ""
    facts: Mapping[str, str | float] = field(default_factory=dict, hash=False)
    sizes: tuple[tuple[int, int], ...] = ()
    dtype: str = "float32"

    @property
    def id(self) -> str:
        """Local id: 12 hex digits of SHA-256 over the series UID and the volume's name."""
        return local_id(self.series, self.name)

    @property
    def affine(self) -> NDArray[np.float64]:
        """`(4, 4)` voxel (column, row, slice) -> RAS+ mm."""
        return np.array(self.matrix, dtype=np.float64)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files without repetition, in the order of the slices."""
        return tuple(dict.fromkeys(self.files))

    def __str__(self) -> str:
        """Where the volume lies and which it is; for messages that stay at the site."""
        return f"{self.files[0].parent} ({self.name})" if self.name else str(self.files[0].parent)


Source = Path | Stack


def files_of(source: Source) -> tuple[Path, ...]:
    """The files from which an image is read, in a fixed order."""
    return (source,) if isinstance(source, Path) else source.paths


@dataclass(frozen=True)
class Case:
    """One subject's images, not yet read.

    Attributes:
        id: Unique within the site.
        patient: Cases of one patient are never split between training and test.
        images: One file or DICOM volume per channel, or one file with all channels.
        label: None for a case without annotation; a DICOM file for SEG and RTSTRUCT.
    """

    id: str
    patient: str
    images: tuple[Source, ...]
    label: Path | None

    @property
    def names(self) -> frozenset[str]:
        """Its id, and those of its DICOM volumes and series, under which other studies may know it."""
        stacks = [image for image in self.images if isinstance(image, Stack)]
        return frozenset({self.id, *(s.id for s in stacks), *(local_id(s.series, "") for s in stacks)})


@dataclass(frozen=True)
class Finding:
    """Something wrong with a case or a site. Stays at the site: it names files.

    Attributes:
        code: Short and stable, e.g. "label-grid".
        severity: An `error` leaves the case out, a `warning` does not.
        case: The case's id, or an empty string for the whole site.
        what: The file and what is wrong with it.
        remedy: What to do.
    """

    code: str
    severity: str
    case: str
    what: str
    remedy: str

    def __post_init__(self) -> None:
        # Names of files may hold signs that move a terminal's cursor, and bytes that are no text at all.
        object.__setattr__(self, "what", "".join(c if c.isprintable() else "\ufffd" for c in self.what))


@dataclass(frozen=True)
class CachedCase:
    """A case as training and evaluation see it: arrays on disk, memory-mapped when read.

    Attributes:
        id: The case's id.
        patient: The patient's id.
        folder: Holds `image.npy` (C, *S) float32, `label.npy` (*S) uint8 on the plan's grid, `truth.npy` uint8 on the
            case's own grid in RAS+ order, `foreground.npy` (N, dims + 1) int32 labelled voxels, each with its label,
            `meta.json`.
        content: SHA-256 over the voxels of scan and label as they were read, in whatever files they lie; what is
            random about a case is seeded with it.
        image: SHA-256 of the scan's voxels, whatever the plan, the label and the file in which they lie.
    """

    id: str
    patient: str
    folder: Path
    content: str
    image: str


@dataclass(frozen=True)
class SiteData:
    """What a site brings to a study: its usable cases in three fixed parts.

    Attributes:
        train: Trained on.
        validation: Models are chosen on them.
        test: Read once, at the end.
        findings: What is wrong or odd, also with cases that are left out.
        found: All cases that were found, usable or not.
    """

    train: tuple[CachedCase, ...]
    validation: tuple[CachedCase, ...]
    test: tuple[CachedCase, ...]
    findings: tuple[Finding, ...] = ()
    found: tuple[Case, ...] = ()

    @property
    def usable(self) -> tuple[CachedCase, ...]:
        """All of them."""
        return (*self.train, *self.validation, *self.test)

    @property
    def patients(self) -> frozenset[str]:
        """Whose they are."""
        return frozenset(case.patient for case in self.usable)
