"""DICOM phantoms hold the voxels, labels and places of the NIfTI phantoms of the same patients.

Judges: nibabel (the NIfTI files), SimpleITK (series of single frames), highdicom (enhanced file, SEG), Matplotlib's
polygons (contours), dcmqi (a second reader of SEG).
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import yaml
from matplotlib.path import Path as Polygon
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from simulations.anatomy import ORGANS
from simulations.dicom_phantom import _VOLUMES
from simulations.phantom import make_phantom
from simulations.phantom_cli import app

CASES = 2
SINGLE = (1, 2, 4)  # hospitals with one file per slice


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for name in ("nifti", "dicom"):
        make_phantom(folder / name, cases=CASES, format=name)  # type: ignore[arg-type]
    return folder


def cases(hospital: int) -> list[str]:
    return [f"h{hospital}_{number + 1:03d}" for number in range(CASES)]


def truth(both: Path, case: str, what: str) -> nibabel.Nifti1Image:
    """The NIfTI phantom with the axes that the hospital's DICOM files have."""
    ending = "_0000.nii.gz" if what == "imagesTr" else ".nii.gz"
    image = nibabel.load(both / "nifti" / f"hospital-{case[1]}" / what / f"{case}{ending}")
    axes = _VOLUMES[int(case[1]) - 1].axes
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(axes)))


def expected_affine(both: Path, case: str) -> NDArray[np.float64]:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", _VOLUMES[int(case[1]) - 1].turn, degrees=True).as_matrix()
    return turn @ truth(both, case, "imagesTr").affine


def scans(both: Path, case: str) -> Path:
    return both / "dicom" / f"hospital-{case[1]}" / "scans" / case


def with_itk(folder: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Voxels `(X, Y, Z)` and RAS+ affine of the one series in a folder."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("hospital", SINGLE)
def test_simpleitk_reads_the_voxels_of_the_nifti_files(both: Path, hospital: int) -> None:
    for case in cases(hospital):
        voxels, affine = with_itk(scans(both, case) / "series-1")
        wanted = np.asarray(truth(both, case, "imagesTr").dataobj)
        if not np.allclose(affine, expected_affine(both, case), atol=1e-4):
            # GDCM sorts by the normal of the plane; the slices may be stored the other way round.
            affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, wanted.shape[2] - 1], [0, 0, 0, 1]])
            voxels = voxels[:, :, ::-1]
        np.testing.assert_allclose(affine, expected_affine(both, case), atol=1e-4)
        np.testing.assert_array_equal(voxels, wanted)


def test_highdicom_reads_the_voxels_of_the_enhanced_file(both: Path) -> None:
    for case in cases(3):
        (file,) = (scans(both, case) / "series-1").iterdir()
        volume = highdicom.imread(file).get_volume()
        # Its axes are slices, rows, columns in LPS+.
        affine = np.diag([-1, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
        voxels, wanted = volume.array.T, np.asarray(truth(both, case, "imagesTr").dataobj)
        if not np.allclose(affine, expected_affine(both, case), atol=1e-4):
            affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, wanted.shape[2] - 1], [0, 0, 0, 1]])
            voxels = voxels[:, :, ::-1]
        np.testing.assert_allclose(affine, expected_affine(both, case), atol=1e-4)
        np.testing.assert_array_equal(voxels, wanted)


@pytest.mark.parametrize("hospital", [1, 3, 4])
def test_highdicom_reads_the_labels_of_the_nifti_files(both: Path, hospital: int) -> None:
    for case in cases(hospital):
        seg = highdicom.seg.segread(scans(both, case) / "label.dcm")
        described = [seg.get_segment_description(n) for n in seg.segment_numbers]
        assert [d.segmented_property_type.value for d in described] == ["10200004", "64033007"]
        volume = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
        found = indices(volume.affine, volume.array, expected_affine(both, case))
        label = np.asarray(truth(both, case, "labelsTr").dataobj)
        assert found == {(*i, int(label[i])) for i in zip(*np.nonzero(label), strict=True)}


def indices(lps: NDArray[np.float64], array: NDArray[np.generic], affine: NDArray[np.float64]) -> set[tuple[int, ...]]:
    """Where the labelled voxels of `array` lie on the grid of `affine` (RAS+), each with its label."""
    where = np.argwhere(array)
    points = np.column_stack([where, np.ones(len(where))]) @ (np.diag([-1, -1, 1, 1]) @ lps).T
    grid = (points @ np.linalg.inv(affine).T)[:, :3]
    assert np.abs(grid - grid.round()).max() < 1e-3
    return {(*(int(n) for n in place), int(array[tuple(i)])) for place, i in zip(grid.round(), where, strict=True)}


def test_contours_enclose_the_labels_of_the_nifti_files(both: Path) -> None:
    for case in cases(2):
        label = np.asarray(truth(both, case, "labelsTr").dataobj)
        data = dcmread(scans(both, case) / "label.dcm")
        names = [roi.ROIName for roi in data.StructureSetROISequence]
        assert names == ["LIVER", "Kidneys both", "CouchSurface"]
        back = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ expected_affine(both, case))
        columns, rows = np.meshgrid(*(np.arange(n) for n in label.shape[:2]), indexing="ij")
        centres = np.column_stack([columns.ravel(), rows.ravel()])
        for number in range(len(ORGANS)):
            mask = np.zeros(label.shape, bool)
            for contour in data.ROIContourSequence[number].ContourSequence:
                points = np.array(contour.ContourData, float).reshape(-1, 3)
                line = (np.column_stack([points, np.ones(len(points))]) @ back.T)[:, :3]
                z = line[:, 2].round().astype(int)
                assert np.ptp(line[:, 2]) < 1e-4 > np.abs(line[0, 2] - z[0])
                mask[:, :, z[0]] ^= Polygon(line[:, :2]).contains_points(centres).reshape(label.shape[:2])
            np.testing.assert_array_equal(mask, label == number + 1)


def test_the_hospitals_store_in_unlike_ways(both: Path) -> None:
    syntaxes = []
    for hospital in (1, 2, 3, 4):
        files = sorted((scans(both, f"h{hospital}_001") / "series-1").iterdir())
        headers = [dcmread(file, stop_before_pixels=True) for file in files]
        syntaxes.append(headers[0].file_meta.TransferSyntaxUID.name)
        if len(headers) > 1:
            positions = [float(h.ImagePositionPatient[2]) for h in headers]
            assert positions != sorted(positions) != positions[::-1], "file names give away the order"
    assert syntaxes == [
        "Explicit VR Little Endian", "RLE Lossless", "JPEG-LS Lossless Image Compression",
        "JPEG 2000 Image Compression (Lossless Only)",
    ]  # fmt: skip
    assert sorted(f.name for f in scans(both, "h2_001").iterdir()) == ["label.dcm", "series-1", "series-2", "series-3"]


def test_the_frames_of_the_enhanced_file_are_in_no_order(both: Path) -> None:
    (file,) = (scans(both, "h3_001") / "series-1").iterdir()
    frames = dcmread(file, stop_before_pixels=True).PerFrameFunctionalGroupsSequence
    positions = [float(f.PlanePositionSequence[0].ImagePositionPatient[0]) for f in frames]
    assert positions != sorted(positions) != positions[::-1]


def test_dcmqi_reads_the_segments(both: Path, tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "segimage2itkimage"
    for hospital in (1, 3, 4):
        seg = scans(both, f"h{hospital}_001") / "label.dcm"
        out = tmp_path / str(hospital)
        out.mkdir()
        command = [tool, "--inputDICOM", seg, "--outputDirectory", out, "--outputType", "nii"]
        subprocess.run(command, check=True, capture_output=True)
        voxels = [int(np.asarray(nibabel.load(f).dataobj).astype(bool).sum()) for f in sorted(out.glob("*.nii*"))]
        label = np.asarray(truth(both, f"h{hospital}_001", "labelsTr").dataobj)
        assert voxels == [int((label == value).sum()) for value in (1, 2)]


def test_pictures_are_the_png_files(tmp_path: Path) -> None:
    for name in ("nifti", "dicom"):
        make_phantom(tmp_path / name, cases=2, dimensions=2, format=name)  # type: ignore[arg-type]
    for hospital in (1, 2, 3, 4):
        for case in cases(hospital):
            png = tmp_path / "nifti" / f"hospital-{hospital}"
            dicom = tmp_path / "dicom" / f"hospital-{hospital}" / "scans" / case
            header = dcmread(dicom / "IM00000")
            assert header.Modality == "DX"
            with Image.open(png / "imagesTr" / f"{case}_0000.png") as image:
                np.testing.assert_array_equal(header.pixel_array, np.asarray(image))
            seg = dcmread(dicom / "label.dcm")
            stored = np.zeros((header.Rows, header.Columns), np.uint8)
            frames = np.atleast_3d(seg.pixel_array.T).T
            for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
                stored[frame > 0] = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            with Image.open(png / "labelsTr" / f"{case}.png") as label:
                np.testing.assert_array_equal(stored, np.asarray(label))


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, str]:
        files = [f for f in folder.rglob("*") if f.is_file()]
        return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    for name in ("one", "two"):
        make_phantom(tmp_path / name, sites=4, cases=1, format="dicom")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_no_two_objects_share_an_identity(both: Path) -> None:
    files = [f for f in (both / "dicom").rglob("*") if f.is_file() and f.suffix not in (".yaml", ".json")]
    instances = [str(dcmread(f, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for f in files]
    assert len(set(instances)) == len(instances) > 100


def test_the_command_writes_dicom_with_the_rules_of_each_hospital(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "p"), "--sites", "2", "--cases", "1", "--format", "dicom"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    settings = [yaml.safe_load((tmp_path / "p" / f"hospital-{n}" / "site.yaml").read_text()) for n in (1, 2)]
    assert settings[0]["labels"] == {"liver": {"code": "10200004"}, "kidneys": {"code": "64033007"}}
    assert settings[1]["labels"] == {"liver": "liver*", "kidneys": "kidneys*"}
    assert settings[1]["ignored"] == ["Couch*"]
