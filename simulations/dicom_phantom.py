"""Phantom hospitals that keep their scans as DICOM: the same patients as the NIfTI ones, each stored in another way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import yaml
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from simulations.anatomy import ORGANS
from simulations.dicom_labels import CODES, COUCH, write_rtstruct, write_seg
from simulations.dicom_series import Acquisition, write_picture, write_series
from simulations.scanner import Scan

Affine = NDArray[np.float64]
Labels = NDArray[np.uint8]
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True)
class Storage:
    """How a hospital stores its volumes.

    Attributes:
        axes: Where columns, rows and slices run to.
        how: Of the files.
        label: Kind of the label's file.
        crowded: Whether a localiser and a second series of the patient lie beside the scan.
        turn: The couch or the planes are turned by this about the x, y and z axis, degrees.
    """

    axes: str = "LPS"
    how: Acquisition = field(default_factory=Acquisition)
    label: Literal["seg", "rtstruct"] = "seg"
    crowded: bool = False
    turn: tuple[float, float, float] = (0, 0, 0)


# The usual; a structure set beside compressed slices that go down; one file of sagittal frames; oblique coronal slices.
_VOLUMES = (
    Storage(),
    Storage("LPI", Acquisition(syntax=RLELossless, offset=32768), label="rtstruct", crowded=True),
    Storage("PIR", Acquisition(syntax=JPEGLSLossless, enhanced=True)),
    Storage("LIP", Acquisition(syntax=JPEG2000Lossless, offset=32768), turn=(14, -6, 9)),
)
_PICTURES = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)


def write_hospital(
    folder: Path,
    index: int,
    cases: Iterable[tuple[str, Scan]],
    picture: Callable[[Scan], tuple[Labels, Labels]],
) -> None:
    """Write the cases of hospital number `index` (from 0) and what it says of them (`site.yaml`).

    Args:
        folder: Gets `site.yaml`, and in `scans` one folder per case with one sub-folder per series and the label.
        index: Decides how they are stored.
        cases: Name and scan of each; scans of one slice become pictures.
        picture: The grey values and the labels `(H, W)` of a scan of one slice.
    """
    storage = _VOLUMES[index % len(_VOLUMES)]
    flat = False
    for case, scan in cases:
        place = folder / "scans" / case
        flat = scan.image.shape[2] == 1
        if flat:
            _write_picture(place, *picture(scan), scan.spacing[0], _PICTURES[index % len(_PICTURES)])
        else:
            _write_volume(place, scan, storage)
    outlined = storage.label == "rtstruct" and not flat
    settings = {"name": folder.name, "data": "scans", "layout": "dicom"} | _rules(
        outlined, storage.crowded and not flat
    )
    (folder / "site.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _rules(outlined: bool, crowded: bool) -> dict[str, object]:
    """What the hospital must say to be understood: how its labels are named, and which series is meant."""
    rules: dict[str, object] = {}
    if outlined:
        rules["labels"] = {organ: f"{CODES[organ][2].split()[0].lower()}*" for organ in ORGANS}
        rules["ignored"] = [f"{COUCH[:5]}*"]
    else:
        rules["labels"] = {organ: {"code": str(CODES[organ][1].value)} for organ in ORGANS}
    if crowded:
        rules["series"] = {"image": {"description": f"{Acquisition().description}*"}}
    return rules


def _write_volume(place: Path, scan: Scan, storage: Storage) -> None:
    affine = np.diag([*scan.spacing, 1.0])
    affine[:3, 3] = -(np.array(scan.image.shape) - 1) / 2 * scan.spacing
    image, turned = _along(scan.image, affine, storage)
    label, _ = _along(scan.label, affine, storage)
    headers = write_series(image, turned, place / "series-1", place.name, storage.how)
    write = write_rtstruct if storage.label == "rtstruct" else write_seg
    write(label, turned, headers, place / "label.dcm", ORGANS)
    if storage.crowded:
        _write_others(image, turned, place, storage)


def _write_others(image: NDArray[np.int16], affine: Affine, place: Path, storage: Storage) -> None:
    """A localiser of three slices, and a fast scan of the same body that looks otherwise and has fewer slices."""
    thick = affine @ np.diag([1, 1, 2, 1])
    fast = replace(storage.how, number=2, description="phantom fast")
    write_series((image[:, :, ::2] // 2).astype(np.int16), thick, place / "series-2", place.name, fast)
    apart = image.shape[2] // 3
    survey = replace(storage.how, number=3, description="localizer", purpose="LOCALIZER")
    write_series(
        image[:, :, ::apart][:, :, :3], affine @ np.diag([1, 1, apart, 1]), place / "series-3", place.name, survey
    )


def _write_picture(place: Path, grey: NDArray[np.uint8], label: NDArray[np.uint8], pixel: float, syntax: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    header: Dataset = write_picture(grey, pixel, place / "IM00000", place.name, syntax)
    write_seg(label.T[:, :, np.newaxis], np.eye(4), [header], place / "label.dcm", ORGANS)


def _along(array: NDArray[_Number], affine: Affine, storage: Storage) -> tuple[NDArray[_Number], Affine]:
    """A RAS+ volume with its axes as `storage` has them, and the affine of that."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(storage.axes))  # type: ignore[no-untyped-call]
    rotation: Affine = np.eye(4)
    rotation[:3, :3] = Rotation.from_euler("xyz", storage.turn, degrees=True).as_matrix()
    moved: Any = rotation @ affine @ inv_ornt_aff(turn, array.shape)  # type: ignore[no-untyped-call]
    return apply_orientation(array, turn), moved  # type: ignore[no-untyped-call]
