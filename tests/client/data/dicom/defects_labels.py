"""Defects of DICOM SEG and RT structure sets: each spoils a good label and says which masks are still to be read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from simulations.dicom_labels import CODES, write_rtstruct, write_seg
from simulations.dicom_series import Acquisition, uid, write_series
from tests.client.data.dicom.good import PATIENT

ORGANS = ("liver", "kidneys")
Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Drawn:
    """A series with known labels.

    Attributes:
        sets: Of the series, in slice order.
        affine: As it was written with: columns, rows, slices -> RAS+ mm.
        label: `(X, Y, Z)` of the same axes; 1 is the liver, 2 the kidneys.
    """

    sets: list[Dataset]
    affine: NDArray[np.float64]
    label: NDArray[np.uint8]

    @property
    def masks(self) -> Masks:
        """By organ, axes as `label`."""
        return {organ: self.label == i + 1 for i, organ in enumerate(ORGANS)}


def draw(folder: Path) -> Drawn:
    """Two organs with holes and ragged edges in a CT-like series, whose files `folder` gets."""
    rng = np.random.default_rng(5)
    label = np.zeros((40, 44, 9), np.uint8)
    label[6:18, 8:25, 1:7] = 1
    label[9:13, 12:15, 3:5] = 0
    label[22:27, 10:20, 2:8] = 2
    label[8:26, 8:25][rng.random((18, 17, 9)) < 0.02] = 0
    affine = np.diag([-1.5, -1.25, 3, 1])
    affine[:3, 3] = 30, 25, -12
    voxels = rng.integers(-900, 1500, label.shape).astype(np.int16)
    sets = write_series(voxels, affine, folder / "series", PATIENT, Acquisition("CT", offset=1024))
    return Drawn(sets, affine, label)


Spoil = Callable[[Drawn, Path], Masks | None]


@dataclass(frozen=True)
class Defect:
    """One way in which a label is wrong, or looks it.

    Attributes:
        spoil: Writes the label's file; returns the masks to be read, or None where it is to be refused.
        codes: Findings or reasons of which one must be given; none for what is right.
    """

    spoil: Spoil
    codes: tuple[str, ...] = ()


LABEL_DEFECTS: dict[str, Defect] = {}


def defect(*codes: str) -> Callable[[Spoil], Spoil]:
    """Enter a function into LABEL_DEFECTS under its name."""

    def enter(spoil: Spoil) -> Spoil:
        LABEL_DEFECTS[spoil.__name__.replace("_", "-")] = Defect(spoil, codes)
        return spoil

    return enter


def seg(drawn: Drawn, path: Path, edit: Callable[[Any], object] = lambda data: None) -> Masks:
    """Write a SEG, changed by `edit`."""
    write_seg(drawn.label, drawn.affine, drawn.sets, path, ORGANS)
    data = dcmread(path)
    edit(data)
    data.save_as(path)
    return drawn.masks


def outlines(drawn: Drawn, path: Path, edit: Callable[[Any], object] = lambda data: None) -> Masks:
    """Write a structure set, changed by `edit`."""
    write_rtstruct(drawn.label, drawn.affine, drawn.sets, path, ORGANS)
    data = dcmread(path)
    edit(data)
    data.save_as(path)
    return drawn.masks


def described(drawn: Drawn, path: Path, pixels: NDArray[Any], kind: str, **more: Any) -> None:
    """Write a SEG of another kind with highdicom: `pixels` `(frames, rows, columns[, segments])`."""
    category = highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    segments = [
        highdicom.seg.SegmentDescription(i + 1, CODES[o][0], category, CODES[o][1], "MANUAL")
        for i, o in enumerate(ORGANS)
    ]
    highdicom.seg.Segmentation(
        drawn.sets, pixels, kind, segments, uid("s", path), 9, uid("i", path), 1, "m", "m", "1", "1", **more
    ).save_as(path)


def each_frame(edit: Callable[[Any, int], None]) -> Callable[[Any], None]:
    """An edit of every frame's functional groups."""

    def all_frames(data: Any) -> None:
        for index, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            edit(group, index)

    return all_frames


def contours(data: Any) -> list[Any]:
    """All contours of the organs."""
    return [c for roi in data.ROIContourSequence[: len(ORGANS)] for c in roi.ContourSequence]


# --- segmentations ---


@defect()
def seg_as_it_should_be(drawn: Drawn, path: Path) -> Masks | None:
    return seg(drawn, path)


@defect()
def seg_frames_in_no_order(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        frames = data.pixel_array
        order = np.random.default_rng(1).permutation(len(frames))
        groups = data.PerFrameFunctionalGroupsSequence
        data.PerFrameFunctionalGroupsSequence = Sequence([groups[int(i)] for i in order])
        bits = np.packbits(frames[order].astype(np.uint8).ravel(), bitorder="little").tobytes()
        data.PixelData = bits + b"\0" * (len(bits) % 2)

    return seg(drawn, path, edit)


@defect()
def seg_with_empty_frames(drawn: Drawn, path: Path) -> Masks | None:
    described(drawn, path, np.ascontiguousarray(drawn.label.T), "BINARY", omit_empty_frames=False)
    return drawn.masks


@defect()
def seg_fractional(drawn: Drawn, path: Path) -> Masks | None:
    stacked = np.stack([0.9 * m.T for m in drawn.masks.values()], axis=-1)
    described(drawn, path, stacked + 0.2 * (stacked == 0), "FRACTIONAL")
    return drawn.masks


@defect()
def seg_label_map(drawn: Drawn, path: Path) -> Masks | None:
    described(drawn, path, np.ascontiguousarray(drawn.label.T), "LABELMAP")
    return drawn.masks


@defect()
def seg_compressed(drawn: Drawn, path: Path) -> Masks | None:
    stacked = np.stack([m.T.astype(np.float64) for m in drawn.masks.values()], axis=-1)
    described(drawn, path, stacked, "FRACTIONAL", transfer_syntax_uid="1.2.840.10008.1.2.5")
    return drawn.masks


@defect()
def seg_overlapping(drawn: Drawn, path: Path) -> Masks | None:
    """Both masks are read; which of them counts is the labels' contract."""
    masks = drawn.masks
    masks["kidneys"] = masks["kidneys"] | np.roll(masks["liver"], 1, axis=0)
    assert (masks["kidneys"] & masks["liver"]).any()
    described(drawn, path, np.stack([m.T.astype(np.uint8) for m in masks.values()], axis=-1), "BINARY")
    return masks


@defect()
def seg_of_another_frame_but_these_slices(drawn: Drawn, path: Path) -> Masks | None:
    return seg(drawn, path, lambda data: setattr(data, "FrameOfReferenceUID", uid("other frame")))


def _of_other_slices(data: Any) -> None:
    for item in _nested(data):
        if "ReferencedSOPInstanceUID" in item:
            item.ReferencedSOPInstanceUID = uid("other", item.ReferencedSOPInstanceUID)
    for series in data.get("ReferencedSeriesSequence", []):
        series.SeriesInstanceUID = uid("other series")


def _nested(data: Dataset) -> list[Dataset]:
    found = []
    for element in data:
        if element.VR == "SQ":
            for item in element.value:
                found += [item, *_nested(item)]
    return found


@defect("label-frame")
def seg_of_another_frame_and_series(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        data.FrameOfReferenceUID = uid("other frame")
        _of_other_slices(data)

    seg(drawn, path, edit)
    return None


@defect()
def seg_of_another_series_in_this_frame(drawn: Drawn, path: Path) -> Masks | None:
    """Drawn on another series of the same examination: the place counts."""
    return seg(drawn, path, _of_other_slices)


@defect("header", "damaged")
def seg_without_segments(drawn: Drawn, path: Path) -> Masks | None:
    seg(drawn, path, lambda data: setattr(data, "SegmentSequence", Sequence([])))
    return None


@defect("header", "damaged")
def seg_frame_of_a_segment_that_is_not_described(drawn: Drawn, path: Path) -> Masks | None:
    seg(drawn, path, lambda data: data.SegmentSequence.pop())
    return None


@defect("header", "damaged")
def seg_two_segments_of_one_number(drawn: Drawn, path: Path) -> Masks | None:
    seg(drawn, path, lambda data: setattr(data.SegmentSequence[1], "SegmentNumber", 1))
    return None


@defect("header", "damaged")
def seg_more_frames_than_described(drawn: Drawn, path: Path) -> Masks | None:
    seg(drawn, path, lambda data: data.PerFrameFunctionalGroupsSequence.pop())
    return None


@defect("damaged")
def seg_pixels_cut_off(drawn: Drawn, path: Path) -> Masks | None:
    seg(drawn, path, lambda data: setattr(data, "PixelData", data.PixelData[:300]))
    return None


@defect("too-large")
def seg_of_100_gb(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        data.Rows = data.Columns = 65535
        data.NumberOfFrames = 2**31 - 1

    seg(drawn, path, edit)
    return None


@defect("label-grid")
def seg_turned(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        plane = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        plane.ImageOrientationPatient = [0.9848078, 0.1736482, 0, -0.1736482, 0.9848078, 0]

    seg(drawn, path, edit)
    return None


@defect("label-grid")
def seg_half_a_voxel_beside(drawn: Drawn, path: Path) -> Masks | None:
    def edit(group: Any, index: int) -> None:
        plane = group.PlanePositionSequence[0]
        x, y, z = (float(v) for v in plane.ImagePositionPatient)
        plane.ImagePositionPatient = [x + 0.75, y, z]

    seg(drawn, path, each_frame(edit))
    return None


@defect("label-grid", "header")
def seg_of_no_spacing(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0, 0]

    seg(drawn, path, edit)
    return None


@defect("header", "label-grid")
def seg_position_not_a_number(drawn: Drawn, path: Path) -> Masks | None:
    seg(drawn, path)
    data = path.read_bytes()
    at = data.rindex(b"\x20\x00\x32\x00DS")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    path.write_bytes(data[: at + 8] + b"NaN\\NaN\\NaN".ljust(length) + data[at + 8 + length :])
    return None


@defect()
def seg_frame_missing(drawn: Drawn, path: Path) -> Masks | None:
    """A slice without a frame is a slice without the organ: nobody can tell it from a lost one."""
    label = drawn.label.copy()
    label[:, :, 4] = 0
    write_seg(label, drawn.affine, drawn.sets, path, ORGANS)
    return {organ: label == i + 1 for i, organ in enumerate(ORGANS)}


@defect()
def seg_of_fewer_rows(drawn: Drawn, path: Path) -> Masks | None:
    """Cut to the box around the organs, as some tools write it."""
    cut = drawn.label[2:-2, 3:-3]
    assert cut.sum() == drawn.label.sum()

    def edit(data: Any) -> None:
        frames = data.pixel_array[:, 3:-3, 2:-2]
        data.Rows, data.Columns = frames.shape[1:]
        bits = np.packbits(frames.astype(np.uint8).ravel(), bitorder="little").tobytes()
        data.PixelData = bits + b"\0" * (len(bits) % 2)
        spacing = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        for group in data.PerFrameFunctionalGroupsSequence:
            plane = group.PlanePositionSequence[0]
            x, y, z = (float(v) for v in plane.ImagePositionPatient)
            plane.ImagePositionPatient = [x + 2 * float(spacing[1]), y + 3 * float(spacing[0]), z]

    return seg(drawn, path, edit)


# --- structure sets ---


@defect()
def rtstruct_as_it_should_be(drawn: Drawn, path: Path) -> Masks | None:
    return outlines(drawn, path)


@defect()
def rtstruct_contours_in_no_order(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        for roi in data.ROIContourSequence:
            roi.ContourSequence = Sequence(list(roi.ContourSequence)[::-1])
        data.ROIContourSequence = Sequence(list(data.ROIContourSequence)[::-1])

    return outlines(drawn, path, edit)


@defect()
def rtstruct_a_little_off_plane(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        for contour in contours(data):
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            points[:, 2] += 0.2
            contour.ContourData = [f"{v:.4f}" for v in points.ravel()]

    return outlines(drawn, path, edit)


def _point(drawn: Drawn, i: float, j: float, k: float) -> list[float]:
    x, y, z = (drawn.affine @ [i, j, k, 1])[:3]
    return [-x, -y, z]


def _add(data: Any, points: list[float], kind: str = "CLOSED_PLANAR") -> None:
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points) // 3
    contour.ContourData = [f"{v:.4f}" for v in points]
    data.ROIContourSequence[0].ContourSequence.append(contour)


@defect("contour-points")
def rtstruct_contour_of_two_points(drawn: Drawn, path: Path) -> Masks | None:
    """It encloses nothing; the others stay."""
    points = _point(drawn, 30, 30, 2) + _point(drawn, 35, 38, 2)
    return outlines(drawn, path, lambda data: _add(data, points))


@defect("contour-open")
def rtstruct_point(drawn: Drawn, path: Path) -> Masks | None:
    return outlines(drawn, path, lambda data: _add(data, _point(drawn, 30, 30, 2), "POINT"))


@defect("label-plane")
def rtstruct_between_the_planes(drawn: Drawn, path: Path) -> Masks | None:
    """It belongs to the nearest slice."""
    corners = [(29.5, 29.5), (36.5, 29.5), (36.5, 38.5), (29.5, 38.5)]
    points = [v for i, j in corners for v in _point(drawn, i, j, 7.6)]
    masks = outlines(drawn, path, lambda data: _add(data, points))
    masks["liver"][30:37, 30:39, 8] = True
    return masks


@defect("label-plane")
def rtstruct_across_the_planes(drawn: Drawn, path: Path) -> Masks | None:
    corners = [(30, 30, 1), (36, 30, 1), (36, 38, 4), (30, 38, 4)]
    points = [v for corner in corners for v in _point(drawn, *corner)]
    outlines(drawn, path, lambda data: _add(data, points))
    return None


@defect("label-outside")
def rtstruct_beyond_the_last_slice(drawn: Drawn, path: Path) -> Masks | None:
    points = [v for i, j in [(5, 5), (9, 5), (9, 9), (5, 9)] for v in _point(drawn, i, j, 20)]
    return outlines(drawn, path, lambda data: _add(data, points))


@defect()
def rtstruct_keyhole(drawn: Drawn, path: Path) -> Masks | None:
    """A ring as one line that goes in and out by the same edge."""
    outer = [(28.5, 28.5), (37.5, 28.5), (37.5, 39.5), (28.5, 39.5)]
    inner = [(31.5, 31.5), (31.5, 36.5), (34.5, 36.5), (34.5, 31.5)]
    line = [*outer, outer[0], *inner, inner[0]]
    masks = outlines(drawn, path, lambda data: _add(data, [v for p in line for v in _point(drawn, *p, 7)]))
    masks["liver"][29:38, 29:40, 7] ^= True
    masks["liver"][32:35, 32:37, 7] ^= True
    return masks


@defect()
def rtstruct_hole_as_a_contour(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        for box in ((28.5, 28.5, 37.5, 39.5), (31.5, 31.5, 34.5, 36.5)):
            a, b, c, d = box
            _add(data, [v for p in ((a, b), (c, b), (c, d), (a, d)) for v in _point(drawn, *p, 7)])

    masks = outlines(drawn, path, edit)
    masks["liver"][29:38, 29:40, 7] ^= True
    masks["liver"][32:35, 32:37, 7] ^= True
    return masks


@defect("header", "damaged")
def rtstruct_coordinates_not_in_threes(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        contour = data.ROIContourSequence[0].ContourSequence[0]
        contour.ContourData = list(contour.ContourData)[:-1]

    outlines(drawn, path, edit)
    return None


@defect("header", "damaged")
def rtstruct_coordinates_of_words(drawn: Drawn, path: Path) -> Masks | None:
    marker = "4711.0815"
    outlines(drawn, path, lambda data: _add(data, [4711.0815] * 9))
    path.write_bytes(path.read_bytes().replace(marker.encode(), b"nonsense!"))
    return None


@defect("header", "damaged")
def rtstruct_coordinates_not_numbers(drawn: Drawn, path: Path) -> Masks | None:
    outlines(drawn, path, lambda data: _add(data, [4711.0815] * 9))
    path.write_bytes(path.read_bytes().replace(b"4711.0815", b"      NaN"))
    return None


@defect("header", "damaged")
def rtstruct_contours_of_an_unknown_roi(drawn: Drawn, path: Path) -> Masks | None:
    outlines(drawn, path, lambda data: setattr(data.ROIContourSequence[0], "ReferencedROINumber", 77))
    return None


@defect("label-frame")
def rtstruct_of_another_frame_and_series(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        _of_other_slices(data)
        for item in [data, *_nested(data)]:
            for keyword in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"):
                if keyword in item:
                    setattr(item, keyword, uid("other frame"))
            if "RTReferencedSeriesSequence" in item:
                item.RTReferencedSeriesSequence[0].SeriesInstanceUID = uid("other series")

    outlines(drawn, path, edit)
    return None


@defect()
def rtstruct_without_contours_of_one_organ(drawn: Drawn, path: Path) -> Masks | None:
    masks = outlines(drawn, path, lambda data: data.ROIContourSequence[1].__delattr__("ContourSequence"))
    masks["kidneys"][:] = False
    return masks


@defect("header", "damaged", "rtstruct-empty")
def rtstruct_without_rois(drawn: Drawn, path: Path) -> Masks | None:
    def edit(data: Any) -> None:
        data.StructureSetROISequence = data.ROIContourSequence = Sequence([])

    outlines(drawn, path, edit)
    return None
