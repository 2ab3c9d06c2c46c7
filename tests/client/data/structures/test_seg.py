"""DICOM SEG: real files against dcmqi, their NRRD originals and known volumes; written ones (highdicom) against the
arrays from which they are made, and SimpleITK's resampling where grids differ."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from client.data.dicom.scan import scan
from client.data.readers import read
from client.data.structures import Misfit, Structures, open_structures
from client.data.volume import Stack, Volume
from simulations.dicom_series import Acquisition, write_picture, write_series

TURNED = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.diag([-1.5, -1.25, 3.0])
PLACE = np.array([30.0, 25.0, -12.0])


class Phantom:
    """A series of 22 x 19 x 6 voxels in an oblique plane, and two structures that overlap nowhere."""

    def __init__(self, folder: Path, enhanced: bool = False) -> None:
        rng = np.random.default_rng(5)
        self.affine = np.eye(4)
        self.affine[:3, :3], self.affine[:3, 3] = TURNED, PLACE
        self.label = np.zeros((22, 19, 6), np.uint8)
        self.label[3:11, 4:15, 1:5] = 1
        self.label[13:20, 2:9, 2:4] = 2
        self.label[rng.random(self.label.shape) < 0.05] = 0
        voxels = rng.integers(-900, 1500, self.label.shape).astype(np.int16)
        how = Acquisition("CT", offset=1024, enhanced=enhanced)
        self.images = write_series(voxels, self.affine, folder / "series", "p1", how)
        (self.stack,) = scan(folder / "series").stacks
        self.volume = read(self.stack)

    def on_image(self, mask: NDArray[Any]) -> NDArray[Any]:
        """`mask`, in the order of the files, in the order of the image's RAS+ axes."""
        back = np.linalg.inv(self.affine) @ self.volume.affine
        grid = np.indices(self.volume.array.shape[1:]).reshape(3, -1)
        i, j, k = np.rint(back[:3, :3] @ grid + back[:3, 3:]).astype(int)
        return mask[i, j, k].reshape(self.volume.array.shape[1:])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    return Phantom(tmp_path_factory.mktemp("phantom"))


def described(number: int, name: str) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(number, name, codes.SCT.Organ, codes.SCT.Liver, "MANUAL")


def written(path: Path, images: Sequence[Any], frames: NDArray[Any], kind: str = "BINARY", **more: Any) -> Any:
    seg = hd.seg.Segmentation(
        images, frames, kind, [described(1, "one"), described(2, "two")], hd.UID(), 7, hd.UID(), 1, "m", "n", "1", "s",
        **more,
    )  # fmt: skip
    seg.save_as(path)
    return seg


def assert_read(phantom: Phantom, path: Path, expected: NDArray[Any] | None = None) -> Structures:
    structures = open_structures(path, phantom.stack, phantom.volume)
    expected = phantom.label if expected is None else expected
    for number, name in ((1, "one"), (2, "two")):
        assert [s.name for s in structures.segments if s.number == number] == [name]
        np.testing.assert_array_equal(structures.mask(number), phantom.on_image(expected == number))
    return structures


@pytest.mark.parametrize(
    ("kind", "syntax"),
    # Single bits cannot be compressed by run lengths.
    [("BINARY", ExplicitVRLittleEndian), ("FRACTIONAL", ExplicitVRLittleEndian), ("LABELMAP", ExplicitVRLittleEndian),
     ("FRACTIONAL", RLELossless), ("LABELMAP", RLELossless)],
)  # fmt: skip
@pytest.mark.parametrize("omit", [True, False])
def test_each_kind_gives_its_array(phantom: Phantom, tmp_path: Path, kind: str, syntax: str, omit: bool) -> None:
    written(tmp_path / "s.dcm", phantom.images, phantom.label.T.copy(), kind,
            transfer_syntax_uid=syntax, omit_empty_frames=omit)  # fmt: skip
    structures = assert_read(phantom, tmp_path / "s.dcm")
    assert not structures.notes
    first = structures.segments[0]
    assert first.code is not None
    assert (first.code.value, first.code.scheme) == ("10200004", "SCT")


@pytest.mark.parametrize("fraction", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("largest", [255, 100, 3])
def test_fractions_are_in_from_half_of_the_largest_value(
    phantom: Phantom, tmp_path: Path, fraction: str, largest: int
) -> None:
    levels = np.random.default_rng(1).integers(0, largest + 1, (6, 19, 22, 2))
    written(tmp_path / "s.dcm", phantom.images, levels / largest, "FRACTIONAL", fractional_type=fraction,
            max_fractional_value=largest)  # fmt: skip
    stored = pydicom.dcmread(tmp_path / "s.dcm")
    groups = stored.PerFrameFunctionalGroupsSequence
    assert len(groups) == len(stored.pixel_array)
    structures = open_structures(tmp_path / "s.dcm", phantom.stack, phantom.volume)
    for number in (1, 2):
        expected = phantom.on_image(largest / 2 <= levels[..., number - 1].T)
        np.testing.assert_array_equal(structures.mask(number), expected)


def test_structures_that_overlap_keep_all_their_voxels(phantom: Phantom, tmp_path: Path) -> None:
    both = np.stack([phantom.label.T > 0, phantom.label.T == 2], axis=-1)
    written(tmp_path / "s.dcm", phantom.images, both)
    structures = open_structures(tmp_path / "s.dcm", phantom.stack, phantom.volume)
    np.testing.assert_array_equal(structures.mask(1), phantom.on_image(phantom.label > 0))
    np.testing.assert_array_equal(structures.mask(2), phantom.on_image(phantom.label == 2))


def test_slices_in_another_order_and_some_of_them(phantom: Phantom, tmp_path: Path) -> None:
    chosen = [4, 1, 3]
    images = [phantom.images[i] for i in chosen]
    written(tmp_path / "s.dcm", images, phantom.label.T[chosen])
    expected = np.zeros_like(phantom.label)
    expected[..., chosen] = phantom.label[..., chosen]
    structures = assert_read(phantom, tmp_path / "s.dcm", expected)
    assert not structures.notes


def test_a_label_of_an_enhanced_image(tmp_path: Path) -> None:
    phantom = Phantom(tmp_path, enhanced=True)
    frames = [
        f.PlanePositionSequence[0].ImagePositionPatient for f in phantom.images[0].PerFrameFunctionalGroupsSequence
    ]
    back = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.affine)
    order = [round(float((back @ [*map(float, place), 1.0])[2])) for place in frames]
    written(tmp_path / "s.dcm", phantom.images, phantom.label.T[order])
    assert_read(phantom, tmp_path / "s.dcm")


def on_grid(path: Path, phantom: Phantom, label: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """A SEG on a grid of its own, parallel to the series and in its frame of reference."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    places = [hd.PlanePositionSequence("PATIENT", lps[:3, 3] + k * lps[:3, 2]) for k in range(label.shape[2])]
    written(
        path, phantom.images, label.T.copy(), plane_positions=places,
        pixel_measures=hd.PixelMeasuresSequence(spacing[[1, 0]], float(spacing[2]), float(spacing[2])),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", [*lps[:3, 0] / spacing[0], *lps[:3, 1] / spacing[1]]),
    )  # fmt: skip


def as_itk(label: NDArray[Any], affine: NDArray[np.float64]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(label.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((affine[:3, 3]).tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize(
    ("scale", "shift"),
    [((0.5, 0.5, 1), (0.1, 0.2, 0)), ((1, 1, 0.4), (0, 0, -0.7)), ((2, 1.6, 2.2), (0.3, -0.37, 0.21)),
     ((1, 1, 1), (3, -4, 2)), ((0.7, 1.9, 1), (-2.2, 1.3, 0))],
)  # fmt: skip
def test_another_parallel_grid_gives_the_nearest_voxels(
    phantom: Phantom, tmp_path: Path, scale: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    affine = phantom.affine @ np.diag([*scale, 1.0])
    affine[:3, 3] += phantom.affine[:3, :3] @ shift
    label = np.random.default_rng(2).integers(0, 3, (30, 26, 9)).astype(np.uint8)
    on_grid(tmp_path / "s.dcm", phantom, label, affine)
    reference = as_itk(phantom.label, phantom.affine)
    moved = sitk.Resample(as_itk(label, affine), reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    structures = assert_read(phantom, tmp_path / "s.dcm", sitk.GetArrayFromImage(moved).T)
    assert any(note.code == "label-resampled" for note in structures.notes) == (scale != (1, 1, 1))


def test_a_grid_that_is_turned_or_between_the_voxels_is_refused(phantom: Phantom, tmp_path: Path) -> None:
    label = np.ones((22, 19, 6), np.uint8)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    beside = phantom.affine.copy()
    beside[:3, 3] += 0.5 * beside[:3, 0]
    away = phantom.affine.copy()
    away[:3, 3] += 40 * away[:3, 0]
    for affine, code in ((turn @ phantom.affine, "label-grid"), (beside, "label-grid"), (away, "label-outside")):
        on_grid(tmp_path / "s.dcm", phantom, label, affine)
        with pytest.raises(Misfit) as caught:
            open_structures(tmp_path / "s.dcm", phantom.stack, phantom.volume).mask(1)
        assert caught.value.note.code == code


def test_what_reaches_outside_is_cut_and_said(phantom: Phantom, tmp_path: Path) -> None:
    larger = np.ones((30, 19, 6), np.uint8)
    on_grid(tmp_path / "s.dcm", phantom, larger, phantom.affine)
    structures = open_structures(tmp_path / "s.dcm", phantom.stack, phantom.volume)
    assert structures.mask(1).all()
    assert [note.code for note in structures.notes] == ["label-outside"]


def test_a_label_goes_with_dicom_images_only(phantom: Phantom, tmp_path: Path) -> None:
    written(tmp_path / "s.dcm", phantom.images, phantom.label.T.copy())
    with pytest.raises(Misfit, match="no DICOM series"):
        open_structures(tmp_path / "s.dcm", tmp_path / "scan.nii.gz", phantom.volume)


def itk_of(folder: Path, seg: Path, into: Path) -> list[tuple[int, sitk.Image]]:
    """What dcmqi's segimage2itkimage makes of a SEG: (segment number, mask), one file per segment."""
    tool = Path(sys.executable).parent / "segimage2itkimage"
    into.mkdir()
    options = ("--inputDICOM", seg, "--outputDirectory", into, "--prefix", "s", "--outputType", "nrrd")
    done = subprocess.run([tool, *options], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(int(f.stem.split("-")[1]), sitk.ReadImage(str(f))) for f in sorted(into.glob("*.nrrd"))]


def matches(image: sitk.Image, mask: NDArray[np.bool_], volume: Volume) -> bool:
    """The set voxels of `image` have the places of those of `mask`, all of them."""
    ones = np.argwhere(sitk.GetArrayFromImage(image) > 0)[:, ::-1].astype(float)
    spacing, direction = np.diag(image.GetSpacing()), np.array(image.GetDirection()).reshape(3, 3)
    lps = ones @ (direction @ spacing).T + image.GetOrigin()
    own = np.column_stack([lps * [-1, -1, 1], np.ones(len(lps))]) @ np.linalg.inv(volume.affine).T
    found = np.zeros_like(mask)
    np.testing.assert_allclose(own, np.rint(own), atol=0.02)
    found[tuple(np.rint(own[:, :3]).astype(int).T)] = True
    return bool((found == mask).all())


LIVER = "dcmqi-ct-liver"
REAL = [(LIVER, "ct-3slice", "liver.dcm"), (LIVER, "ct-3slice", "partial_overlaps.dcm"),
        ("dcmqi-23x38x3", "image", "seg/label.seg"), ("dcmqi-24x38x3", "image", "seg/label.seg"),
        ("dcmqi-23x38x3", "multiframe", "seg/label.seg"), ("dcmqi-24x38x3", "multiframe", "seg/label.seg")]  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize(("name", "series", "seg"), REAL)
def test_real_files_are_as_dcmqi_has_them(fedscan_data: Path, tmp_path: Path, name: str, series: str, seg: str) -> None:
    folder = fedscan_data / "dicom-seg-rtstruct-small" / name
    (stack,) = scan(folder / series).stacks
    volume = read(stack)
    structures = open_structures(folder / seg, stack, volume)
    expected = itk_of(folder, folder / seg, tmp_path / "itk")
    assert [n for n, _ in expected] == [s.number for s in structures.segments]
    for number, image in expected:
        assert matches(image, structures.mask(number), volume)


@pytest.mark.data
def test_real_files_are_as_the_masks_from_which_they_came(fedscan_data: Path) -> None:
    folder = fedscan_data / "dicom-seg-rtstruct-small"
    for name, series, seg, mask in ((LIVER, "ct-3slice", "liver.dcm", "liver_seg.nrrd"),
                                    ("dcmqi-23x38x3", "image", "seg/label.seg", "nrrd/label.nrrd"),
                                    ("dcmqi-24x38x3", "image", "seg/label.seg", "nrrd/label.nrrd")):  # fmt: skip
        (stack,) = scan(folder / name / series).stacks
        volume = read(stack)
        structures = open_structures(folder / name / seg, stack, volume)
        image = sitk.ReadImage(str(folder / name / mask))
        assert structures.mask(1).any()
        assert matches(image, structures.mask(1), volume)


def stack_with(folder: Path, references: set[str]) -> Stack:
    """The volume of a cine series whose instances a label names."""
    return next(s for s in scan(folder).stacks if references & set(s.instances))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # components that begin with 0
@pytest.mark.parametrize("patient", ["SCD0000101", "SCD0000201", "SCD0000301"])
@pytest.mark.parametrize("phase", ["ED", "ES"])
def test_slices_with_a_frame_of_reference_each(fedscan_data: Path, patient: str, phase: str) -> None:
    """A whole cine in one series: the label belongs to the one time point that it names."""
    folder = fedscan_data / "cardiac-mr-dicom" / patient
    seg = folder / "derived" / f"seg_{phase}.dcm"
    named = pydicom.dcmread(seg, stop_before_pixels=True).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    stack = stack_with(folder / "series", {i.ReferencedSOPInstanceUID for i in named})
    assert len(stack.frame_of_reference) > 1
    volume = read(stack)
    structures = open_structures(seg, stack, volume)
    expected = read(folder / "derived" / f"{phase}_label.nii.gz")
    np.testing.assert_allclose(expected.affine, volume.affine, atol=1e-3)
    for segment in structures.segments:
        np.testing.assert_array_equal(structures.mask(segment.number), expected.array[0] == segment.number)
    other = next(s for s in scan(folder / "series").stacks if s.name != stack.name)
    with pytest.raises(Misfit, match="another frame of reference"):
        open_structures(seg, other, volume)


def test_a_label_of_a_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    label = rng.integers(0, 3, (21, 34)).astype(np.uint8)
    grey = rng.integers(0, 255, label.shape).astype(np.uint8)
    for folder in ("picture", "other"):
        (tmp_path / folder).mkdir()
    image = write_picture(grey, 0.2, tmp_path / "picture" / "a", "p1", ExplicitVRLittleEndian)
    written(tmp_path / "s.dcm", [image], label)
    (stack,) = scan(tmp_path / "picture").stacks
    structures = open_structures(tmp_path / "s.dcm", stack, read(stack))
    for number in (1, 2):
        np.testing.assert_array_equal(structures.mask(number), label == number)
    other = write_picture(grey[:20], 0.2, tmp_path / "other" / "a", "p2", ExplicitVRLittleEndian)
    (stack,) = scan(tmp_path / "other").stacks
    assert other.SOPInstanceUID in stack.instances
    with pytest.raises(Misfit, match="images that are not of it"):
        open_structures(tmp_path / "s.dcm", stack, read(stack))
