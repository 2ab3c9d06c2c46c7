"""Every image series of the real sets, beside SimpleITK (GDCM) and dcm2niix."""

import subprocess
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from client.data.dicom.geometry import to_ras
from client.data.dicom.objects import Scan
from client.data.dicom.reading import read_stack
from client.data.dicom.scan import scan
from client.data.volume import Stack

pytestmark = pytest.mark.data

# Folder -> number of volumes, of other objects, and the findings' codes.
SETS = {
    "prostate-mr-study-dicom": (9, 0, {"dicom-several-volumes"}),
    "cardiac-mr-dicom": (24, 9, {"dicom-several-volumes"}),
    "dicom-seg-rtstruct-small": (7, 8, {"dicom-copies", "dicom-no-thickness"}),
}


@pytest.fixture(scope="module", params=SETS)
def scanned(request: pytest.FixtureRequest, fedscan_data: Path) -> tuple[str, Scan]:
    return request.param, scan(fedscan_data / request.param)


def test_all_series_are_found(scanned: tuple[str, Scan]) -> None:
    name, found = scanned
    volumes, items, codes = SETS[name]
    assert (len(found.stacks), len(found.items)) == (volumes, items)
    assert {f.code for f in found.findings} <= codes
    assert [f for f in found.findings if f.severity == "error"] == []


def test_every_volume_is_simpleitks(scanned: tuple[str, Scan]) -> None:
    for stack in scanned[1].stacks:
        volume = read_stack(stack)
        array, affine = by_simpleitk(stack)
        assert np.abs(volume.affine - affine).max() < 1e-4, stack.description
        same = volume.array[0] == array.astype(volume.array.dtype)
        if stack.modality == "CT":
            # Padding (-2000 before the intercept) is not kept; it takes the smallest real value.
            padded = array == -2000 + float(stack.facts.get("intercept", 0))
            assert (volume.array[0][padded] == array[~padded].min()).all()
            same |= padded
        assert same.all(), stack.description


def by_simpleitk(stack: Stack) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Voxels and affine in RAS+ order; the files are given in our order, which GDCM checks by their positions."""
    if len(stack.paths) == 1:
        image = SimpleITK.ReadImage(str(stack.paths[0]))
    else:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(file) for file in stack.files])
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return to_ras(SimpleITK.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def test_order_is_gdcms(fedscan_data: Path) -> None:
    alone = 0
    for folder in (fedscan_data / "prostate-mr-study-dicom").rglob("*.000000-*"):
        stacks = scan(folder).stacks
        if len(stacks) == 1:
            names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
            assert [Path(name) for name in names] == list(stacks[0].files)
            alone += 1
    assert alone == 6


def test_diffusion_is_three_volumes_of_19_slices(fedscan_data: Path) -> None:
    (folder,) = (fedscan_data / "prostate-mr-study-dicom").rglob("6.000000*")
    stacks = scan(folder).stacks
    assert [(s.name, s.shape) for s in stacks] == [(f"b={b}", (84, 128, 19)) for b in (50, 400, 800)]


def test_a_cine_is_twenty_volumes_of_twelve_slices(fedscan_data: Path) -> None:
    stacks = scan(fedscan_data / "cardiac-mr-dicom" / "SCD0000101" / "series").stacks
    assert [(s.name, s.shape) for s in stacks] == [(f"t={t:02d}", (256, 256, 12)) for t in range(1, 21)]
    # Twelve frames of reference, one per slice: it is one volume all the same.
    assert len(stacks[0].frame_of_reference) == 12
    # The file's name is the instance number: 20 phases per slice, in order.
    assert all((int(f.stem) - 1) % 20 == t for t, s in enumerate(stacks) for f in s.files)


@pytest.mark.parametrize("which", ["3.000000*", "4.000000*", "5.000000*", "7.000000*", "9.000000*"])
def test_dcm2niix_agrees(fedscan_data: Path, tmp_path: Path, which: str) -> None:
    (folder,) = (fedscan_data / "prostate-mr-study-dicom").rglob(which)
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "scan", "-o", str(tmp_path), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    image = nib.as_closest_canonical(nib.load(tmp_path / "scan.nii"))
    (stack,) = scan(folder).stacks
    volume = read_stack(stack)
    assert np.array_equal(volume.array[0], np.asanyarray(image.dataobj))
    # NIfTI keeps the affine as float32.
    assert np.abs(volume.affine - image.affine).max() < 1e-3
