"""Structure sets: closed forms on an oblique series, rt-utils both ways, contours of experts, and defects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage
from rt_utils import RTStructBuilder
from scipy.ndimage import gaussian_filter, label

from client.data.dicom.problems import Unreadable
from client.data.dicom.scan import scan
from client.data.readers import read
from client.data.structures import Misfit, Structures, open_structures
from simulations.dicom_series import Acquisition, write_series

TURNED = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
TURNED = TURNED @ np.array([[1.0, 0.0, 0.0], [0.0, 0.96, -0.28], [0.0, 0.28, 0.96]])
SHAPE = (60, 60, 7)
CENTRE, RADII = np.array([29.4, 25.7]), np.array([20.3, 15.6])
_NAME = " Liver"


class Series:
    """An oblique CT-like series whose voxel places are known in closed form."""

    def __init__(
        self, folder: Path, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float] = (1.5, 1.25)
    ) -> None:
        self.folder = folder / "series"
        self.affine = np.eye(4)
        self.affine[:3, :3] = TURNED @ np.diag([-spacing[0], -spacing[1], 3.0])
        self.affine[:3, 3] = (30, 25, -12)
        voxels = np.random.default_rng(5).integers(-900, 1500, shape).astype(np.int16)
        self.images = write_series(voxels, self.affine, self.folder, "p1", Acquisition("CT", offset=1024))
        (self.stack,) = scan(self.folder).stacks
        self.volume = read(self.stack)

    def points(self, outline: NDArray[np.float64], k: float) -> NDArray[np.float64]:
        """`(N, 2)` columns and rows of slice `k` as LPS mm."""
        voxels = np.column_stack([outline, np.full(len(outline), k), np.ones(len(outline))])
        return (voxels @ self.affine.T)[:, :3] * [-1, -1, 1]

    def on_image(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """`mask`, in the order of the files, in the order of the image's RAS+ axes."""
        back = np.linalg.inv(self.affine) @ self.volume.affine
        grid = np.indices(self.volume.array.shape[1:]).reshape(3, -1)
        i, j, k = np.rint(back[:3, :3] @ grid + back[:3, 3:]).astype(int)
        return mask[i, j, k].reshape(self.volume.array.shape[1:])

    def write(self, path: Path, contours: Sequence[tuple[str, NDArray[np.float64], int | None]],
              syntax: str = ExplicitVRLittleEndian) -> Path:  # fmt: skip
        """A structure set of one ROI: kind, points in LPS mm and the slice that each contour names."""
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = RTStructureSetStorage, "1.2.3", "RTSTRUCT"
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = 4, _NAME
        roi.ReferencedFrameOfReferenceUID = self.images[0].FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ContourSequence = 4, []
        for kind, points, index in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{v:.10g}"[:16] for v in points.ravel()]
            if index is not None:
                image = Dataset()
                image.ReferencedSOPClassUID = self.images[index].SOPClassUID
                image.ReferencedSOPInstanceUID = self.images[index].SOPInstanceUID
                contour.ContourImageSequence = [image]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence, data.ROIContourSequence = [roi], [drawn]
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path, enforce_file_format=True)
        return path

    def open(self, path: Path) -> Structures:
        return open_structures(path, self.stack, self.volume)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return Series(tmp_path_factory.mktemp("series"))


def ellipse(factor: float = 1.0) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    return np.asarray(CENTRE + factor * RADII * np.column_stack([np.cos(angle), np.sin(angle)]))


def within(factor: float, slices: Sequence[int]) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij"), axis=-1)
    mask = np.zeros(SHAPE, bool)
    mask[..., list(slices)] = ((((grid - CENTRE) / (factor * RADII)) ** 2).sum(axis=-1) < 1)[..., np.newaxis]
    return mask


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_rings_of_closed_form_in_an_oblique_series(series: Series, tmp_path: Path, syntax: str) -> None:
    outer, inner, island = ellipse(), ellipse(0.6)[::-1], ellipse(0.2)
    keyhole = np.concatenate([outer, outer[:1], inner[-1:], inner[:-1][::1], inner[-1:]])
    contours = [("CLOSED_PLANAR", series.points(o, k), k) for k in (5, 1, 3) for o in (outer, island, inner)]
    contours += [("CLOSED_PLANAR", series.points(keyhole, 4), 4), ("CLOSEDPLANAR_XOR", series.points(outer, 2), 2)]
    structures = series.open(series.write(tmp_path / "r.dcm", contours, syntax))
    (segment,) = structures.segments
    assert (segment.number, segment.name) == (4, "Liver")
    expected = within(1, (1, 2, 3, 4, 5)) ^ within(0.6, (1, 3, 4, 5)) ^ within(0.2, (1, 3, 5))
    mask = structures.mask(4)
    assert dice(mask, series.on_image(expected)) >= 0.995
    assert mask.sum() == pytest.approx(np.pi * RADII.prod() * (5 - 4 * 0.36 + 3 * 0.04), rel=0.005)
    assert not structures.notes


@pytest.mark.filterwarnings("ignore:.*will be removed in v4.0:DeprecationWarning")  # rt-utils saves in the old way
def test_what_rt_utils_draws_is_its_mask_again(tmp_path: Path) -> None:
    """rt-utils traces border pixels with OpenCV; holes are contours of their own. Its pixels must be squares."""
    series = Series(tmp_path, spacing=(1.5, 1.5))
    mask = gaussian_filter(np.random.default_rng(6).normal(size=SHAPE), (3, 3, 1)) > 0.03
    builder = RTStructBuilder.create_new(str(series.folder))
    builder.add_roi(mask=mask.transpose(1, 0, 2), name="blob", approximate_contours=False)
    builder.save(str(tmp_path / "r.dcm"))
    structures = series.open(tmp_path / "r.dcm")
    # An island of one or two pixels is a contour of one or two points, which is left out and said.
    np.testing.assert_array_equal(structures.mask(1), series.on_image(_without_islands(mask)))
    assert codes_of(structures) == {"contour-points"}


def _without_islands(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    islands, number = label(mask, np.pad(np.ones((3, 3, 1)), ((0, 0), (0, 0), (1, 1))))
    sizes = np.bincount(islands.ravel(), minlength=number + 1)
    assert (sizes < 3).any()
    return np.asarray(mask & (sizes[islands] >= 3))


def test_rt_utils_fills_what_we_fill(tmp_path: Path) -> None:
    """It rounds vertices to pixels first and takes the border in: half a pixel more, which is little in a large ROI."""
    series = Series(tmp_path, (512, 512, 2), (0.5, 0.5))
    outline = CENTRE + 7.5 * (ellipse() - CENTRE) + 220
    path = series.write(tmp_path / "r.dcm", [("CLOSED_PLANAR", series.points(outline, k), k) for k in range(2)])
    theirs = RTStructBuilder.create_from(str(series.folder), str(_complete(path, series, tmp_path / "whole.dcm")))
    mask = series.on_image(theirs.get_roi_mask_by_name(_NAME).transpose(1, 0, 2))
    ours = series.open(path).mask(4)
    assert dice(ours, mask) >= 0.99


def _complete(source: Path, series: Series, path: Path) -> Path:
    """The structure set with the references that rt-utils asks for."""
    data = pydicom.dcmread(source)
    image = Dataset()
    image.ReferencedSOPClassUID = series.images[0].SOPClassUID
    image.ReferencedSOPInstanceUID = series.images[0].SOPInstanceUID
    rt_series, study, frame = Dataset(), Dataset(), Dataset()
    rt_series.SeriesInstanceUID, rt_series.ContourImageSequence = series.images[0].SeriesInstanceUID, [image]
    study.RTReferencedSeriesSequence = [rt_series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = series.images[0].FrameOfReferenceUID, [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.RTROIObservationsSequence = []
    data.save_as(path)
    return path


def codes_of(structures: Structures) -> set[str]:
    return {note.code for note in structures.notes}


def test_what_encloses_nothing_is_left_out_and_said(series: Series, tmp_path: Path) -> None:
    whole = [("CLOSED_PLANAR", series.points(ellipse(), k), k) for k in (2, 3)]
    two = series.points(np.array([[1.0, 1.0], [9.0, 9.0]]), 3)
    other = [("CLOSED_PLANAR", two, 3), ("POINT", two[:1], 2), ("OPEN_PLANAR", series.points(ellipse(0.3), 2), 2),
             ("", series.points(ellipse(0.3), 2), 2)]  # fmt: skip
    structures = series.open(series.write(tmp_path / "r.dcm", [*whole, *other, whole[1]]))
    assert dice(structures.mask(4), series.on_image(within(1, (2, 3)))) >= 0.99
    assert codes_of(structures) == {"contour-open", "contour-points", "contour-twice"}
    said = " ".join(note.what for note in structures.notes)
    assert "1 × OPEN_PLANAR, 1 × POINT, 1 × no kind" in said
    assert "1 contours of fewer than three" in said
    assert "Right" in next(iter(structures.notes)).remedy


@pytest.mark.parametrize(
    ("off", "codes"), [(0.0, set()), (0.08, set()), (0.2, {"label-plane"}), (-0.45, {"label-plane"})]
)
def test_contours_off_the_middle_belong_to_the_nearest_slice(
    series: Series, tmp_path: Path, off: float, codes: set[str]
) -> None:
    contours = [("CLOSED_PLANAR", series.points(ellipse(), k + off), None) for k in (2, 3, 4)]
    structures = series.open(series.write(tmp_path / "r.dcm", contours))
    assert dice(structures.mask(4), series.on_image(within(1, (2, 3, 4)))) >= 0.99
    assert codes_of(structures) == codes


def test_planes_closer_than_the_slices_do_not_cancel_each_other(series: Series, tmp_path: Path) -> None:
    contours = [("CLOSED_PLANAR", series.points(ellipse(), k), None) for k in np.arange(1, 5, 0.4)]
    structures = series.open(series.write(tmp_path / "r.dcm", contours))
    assert dice(structures.mask(4), series.on_image(within(1, (1, 2, 3, 4, 5)))) >= 0.99
    assert codes_of(structures) == {"label-plane"}


def test_slices_without_contours_between_others_are_said(series: Series, tmp_path: Path) -> None:
    contours = [("CLOSED_PLANAR", series.points(ellipse(), k), k) for k in (1, 3, 5)]
    structures = series.open(series.write(tmp_path / "r.dcm", contours))
    assert dice(structures.mask(4), series.on_image(within(1, (1, 3, 5)))) >= 0.99
    assert codes_of(structures) == {"contour-gap"}


def test_contours_outside_are_left_out_and_said_and_refused_if_all_are(series: Series, tmp_path: Path) -> None:
    contours = [("CLOSED_PLANAR", series.points(ellipse(), k), None) for k in (5, 6, 7, 8)]
    structures = series.open(series.write(tmp_path / "r.dcm", contours))
    assert dice(structures.mask(4), series.on_image(within(1, (5, 6)))) >= 0.99
    assert codes_of(structures) == {"label-outside"}
    assert "2 of 4 contours" in next(iter(structures.notes)).what
    with pytest.raises(Misfit, match="all of Liver lies outside"):
        series.open(series.write(tmp_path / "r.dcm", contours[2:])).mask(4)


def test_contours_across_the_slices_are_refused(series: Series, tmp_path: Path) -> None:
    tilted = series.points(ellipse(), 3) + np.linspace(0, 4, 400)[:, np.newaxis] * [0, 0, 1]
    with pytest.raises(Misfit, match="turned against"):
        series.open(series.write(tmp_path / "r.dcm", [("CLOSED_PLANAR", tilted, None)])).mask(4)


def test_another_frame_of_reference_is_refused_unless_every_slice_is_named(series: Series, tmp_path: Path) -> None:
    contours = [("CLOSED_PLANAR", series.points(ellipse(), k), k) for k in (2, 3)]
    for named, fits in ((contours, True), ([(*contours[0][:2], None), *contours[1:]], True), (_bare(contours), False)):
        path = series.write(tmp_path / "r.dcm", named)
        data = pydicom.dcmread(path)
        data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"
        data.save_as(path)
        if fits:
            assert dice(series.open(path).mask(4), series.on_image(within(1, (2, 3)))) >= 0.99
        else:
            with pytest.raises(Misfit, match="another frame of reference"):
                series.open(path).mask(4)


def _bare(
    contours: Sequence[tuple[str, NDArray[np.float64], int | None]],
) -> list[tuple[str, NDArray[np.float64], int | None]]:
    return [(kind, points, None) for kind, points, _ in contours]


@pytest.mark.parametrize("wrong", [["1", "2"], ["1", "x", "3"], ["nan", "1", "2"], ["1e300", "1", "2"]])
def test_coordinates_that_are_none_are_refused(series: Series, tmp_path: Path, wrong: list[str]) -> None:
    path = series.write(tmp_path / "r.dcm", [("CLOSED_PLANAR", series.points(ellipse(), 2), 2)])
    good = b"\\".join(
        v.encode() for v in map(str, pydicom.dcmread(path).ROIContourSequence[0].ContourSequence[0][0x30060050].value)
    )
    bad = "\\".join(wrong).encode()
    raw = path.read_bytes()
    assert good in raw
    path.write_bytes(raw.replace(good, bad + b" " * (len(good) - len(bad))))
    with pytest.raises(Unreadable, match="header"):
        series.open(path)


def outline_of(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # components that begin with 0
@pytest.mark.parametrize("patient", ["SCD0000101", "SCD0000201", "SCD0000301"])
def test_experts_contours_of_the_heart(fedscan_data: Path, patient: str) -> None:
    """Against the expected volume, and the area of the polygons in the contour files by the shoelace formula."""
    folder = fedscan_data / "cardiac-mr-dicom" / patient
    path = folder / "derived" / "rtstruct_ED.dcm"
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    named = {c.ContourImageSequence[0].ReferencedSOPInstanceUID for c in contours}
    stack = next(s for s in scan(folder / "series").stacks if named & set(s.instances))
    volume = read(stack)
    structures = open_structures(path, stack, volume)
    expected = read(folder / "derived" / "ED_label.nii.gz").array[0]
    endo, epi = structures.mask(1), structures.mask(2)
    assert dice(endo, expected == 1) >= 0.99
    assert dice(epi, expected > 0) >= 0.99
    numbers = {Path(f).stem for f in map(str, stack.files)}
    for name, mask in (("icontour", endo), ("ocontour", epi)):
        files = [f for f in sorted(folder.rglob(f"*{name}*.txt")) if f.name.split("-")[2] in numbers]
        assert len(files) == len(contours)
        area = sum(
            abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 for x, y in (outline_of(f).T for f in files)
        )
        assert mask.sum() == pytest.approx(area, rel=0.005)


@pytest.mark.data
def test_structure_sets_of_rt_utils(fedscan_data: Path) -> None:
    """Against matplotlib's filling: one whose references are the slices, two whose frame of reference fits."""
    folder = fedscan_data / "dicom-seg-rtstruct-small" / "rt-utils" / "mock_data"
    (stack,) = scan(folder).stacks
    volume = read(stack)
    structures = open_structures(folder / "rt.dcm", stack, volume)
    grid = np.stack(np.meshgrid(np.arange(512), np.arange(512), indexing="ij"), axis=-1).reshape(-1, 2)
    expected = np.zeros((512, 512), bool)
    for contour in pydicom.dcmread(folder / "rt.dcm").ROIContourSequence[0].ContourSequence:
        places = (np.array(contour.ContourData, float).reshape(-1, 3)[:, :2] + 125) / 0.488281
        expected ^= Outline(places).contains_points(grid).reshape(512, 512)
    # Columns and rows run towards left and back; the image is turned to right and front.
    np.testing.assert_array_equal(structures.mask(1)[..., 0], expected[::-1, ::-1])
    assert not structures.mask(1)[..., 1].any()
    for name in ("invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"):
        structures = open_structures(folder / name, stack, volume)
        assert len(structures.segments) == 4
        for segment in structures.segments:
            assert structures.mask(segment.number).any()
        # They outline a third slice, which is not in the folder.
        assert codes_of(structures) == {"label-outside"}
