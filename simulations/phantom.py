"""Synthetic hospitals on disk, so that everything can be tried without a scan.

Volumes are NIfTI, pictures are PNG (what the 2D archives that people have are made of), both in the layout of
nnU-Net v2, which knows both: they then pass through the same catalogue and readers as real scans. Layout:
https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
The same patients can be written as DICOM instead, as hospitals have them (`dicom_phantom.py`).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from PIL import Image

from common.disk import write_whole
from common.errors import StudyError
from common.seeds import generator
from simulations.anatomy import ORGANS, random_patient
from simulations.dials import STILL, Dials, Turned
from simulations.scanner import Scan, Scanner, scan, scanner

Format = Literal["nifti", "dicom"]
_RECORD = "phantom.json"
# Raised when the same arguments begin to give other files.
_EDITION = 4


def make_phantom(
    folder: Path,
    *,
    sites: int = 4,
    cases: int = 16,
    dimensions: Literal[2, 3] = 3,
    difference: float = 1.0,
    seed: int = 1,
    format: Format = "nifti",
    dials: Dials = STILL,
) -> list[Path]:
    """Write phantom hospitals, or find them written; the same arguments give the same files.

    Args:
        folder: Gets one folder `hospital-1` … per site, each an nnU-Net v2 data set with the labels ORGANS, or DICOM
            files with a `site.yaml` that says how the labels are named there.
        sites: Number of hospitals.
        cases: Cases per hospital.
        dimensions: 3 for volumes (`.nii.gz`, about 46 voxels a side of 2 mm), 2 for pictures (`.png`).
        difference: How much the hospitals differ: 0 not at all (only their patients do), 1 as real ones may.
        seed: Of patients and scanners.
        format: `nifti` (pictures: PNG) or `dicom`; voxels and labels are the same.
        dials: What differs besides, one thing at a time.

    Returns:
        The hospitals' folders.

    Raises:
        StudyError: `folder` holds phantoms that were made with other arguments.
    """
    made = [folder / f"hospital-{i + 1}" for i in range(sites)]
    wanted = {"edition": _EDITION, "sites": sites, "cases": cases, "dimensions": dimensions,
              "difference": difference, "seed": seed, "format": format, **asdict(dials)}  # fmt: skip
    record = folder / _RECORD
    if record.exists():
        # Folders from before there was a choice do not name it.
        found = {"format": "nifti", **asdict(STILL)} | json.loads(record.read_text())
        if found == wanted:
            return made
        if found | {"edition": _EDITION} != wanted:
            raise StudyError(f"{folder}: holds phantoms made with other settings; delete it or give another folder")
    for index, site in enumerate(made):
        turned = dials.at(index, sites)
        by = turned.scanner(scanner(index, difference, generator(seed, "scanner", index)))
        patients = _cases(by, turned, cases, dimensions, seed, index)
        if format == "dicom":
            # Loads pydicom and highdicom, which most simulations do without.
            from simulations.dicom_phantom import write_hospital

            write_hospital(site, index, patients, _picture)
        else:
            _write_site(site, by, patients, cases, dimensions)
    # Last of all: a folder without the record was interrupted, and is written again.
    write_whole(record, lambda part: part.write_text(json.dumps(wanted, indent=1) + "\n"))
    return made


def _cases(
    by: Scanner, turned: Turned, cases: int, dimensions: Literal[2, 3], seed: int, index: int
) -> Iterator[tuple[str, Scan]]:
    """Name and scan of each case of hospital number `index`."""
    for number in range(cases):
        rng = generator(seed, "case", index, number)
        kidneys: Any = int(rng.integers(2)) if rng.random() < by.missing else 2
        patient = random_patient(rng, scale=1 + by.organs, kidneys=0 if turned.lacks_kidneys(number) else kidneys)
        yield f"h{index + 1}_{number + 1:03d}", turned.labelled(scan(patient, by, dimensions, rng), number)


def _write_site(
    folder: Path, by: Scanner, patients: Iterator[tuple[str, Scan]], cases: int, dimensions: Literal[2, 3]
) -> None:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ending = ".nii.gz" if dimensions == 3 else ".png"
    write = _write_volume if dimensions == 3 else _write_picture
    for case, result in patients:
        write(result, folder / "imagesTr" / f"{case}_0000{ending}", folder / "labelsTr" / f"{case}{ending}", by)
    description = {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, **{organ: i + 1 for i, organ in enumerate(ORGANS)}},
        "numTraining": cases,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")


def _write_volume(result: Scan, image: Path, label: Path, by: Scanner) -> None:
    """Both arrays as NIfTI, their axes in the order and direction of the hospital's files."""
    affine = np.diag([*result.spacing, 1.0])
    affine[:3, 3] = -(np.array(result.image.shape) - 1) / 2 * result.spacing
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(by.orientation))  # type: ignore[no-untyped-call]
    for array, path in ((result.image, image), (result.label, label)):
        file = nibabel.Nifti1Image(array, affine).as_reoriented(turn)  # type: ignore[no-untyped-call]
        file.header.set_xyzt_units("mm")
        nibabel.save(file, path)


def _write_picture(result: Scan, image: Path, label: Path, by: Scanner) -> None:
    """The one slice as 8-bit grey PNGs."""
    for array, path in zip(_picture(result), (image, label), strict=True):
        Image.fromarray(array).save(path)


def _picture(result: Scan) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey values and labels `(H, W)` of the one slice: front at the top, the patient's right on the left, as viewers
    show it."""
    low, high = np.percentile(result.image, [0.5, 99.5])
    grey = np.clip((result.image - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
    return (
        np.ascontiguousarray(grey[::-1, ::-1, 0].T),
        np.ascontiguousarray(result.label[::-1, ::-1, 0].T),
    )
