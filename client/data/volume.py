"""A scan in memory, in one convention: RAS+ axes, millimetres."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Case:
    """One subject's files, not yet read.

    Attributes:
        id: Unique within the site.
        patient: Cases of one patient are never split between training and test.
        images: One file per channel, or one file with all channels.
        label: None for a case without annotation.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


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


@dataclass(frozen=True)
class CachedCase:
    """A case as training and evaluation see it: arrays on disk, memory-mapped when read.

    Attributes:
        id: The case's id.
        patient: The patient's id.
        folder: Holds `image.npy` (C, *S) float32, `label.npy` (*S) uint8 on the plan's grid, `truth.npy` uint8 on the
            case's own grid in RAS+ order, `foreground.npy` (N, dims + 1) int32 labelled voxels, each with its label,
            `meta.json`.
        key: SHA-256 over plan and file contents; equal keys mean equal arrays.
        image: SHA-256 of the scan's voxels, whatever the plan, the label and the file in which they lie.
    """

    id: str
    patient: str
    folder: Path
    key: str
    image: str


@dataclass(frozen=True)
class SiteData:
    """What a site brings to a study: its usable cases in three fixed parts."""

    train: tuple[CachedCase, ...]
    validation: tuple[CachedCase, ...]
    test: tuple[CachedCase, ...]
    findings: tuple[Finding, ...] = ()
