"""DICOM segmentations on an image's grid."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data.structures.belonging import check_belongs, drawn_elsewhere, grid_of, slice_axis, slices_of
from client.data.structures.model import Code, Mask, Misfit, Segment, Structures
from client.data.structures.placing import TOLERANCE, Grid, Placing, place
from client.data.volume import Stack, Volume

_ONE_PLANE = 0.01  # mm; nearer frames lie in one plane
_ELSEWHERE = "Find the series on which it was drawn, or the label of this series."


class Segmentation(Structures):
    """A segmentation whose frames are placed by their position, or by the slice that they name if they have none.

    Frames may come in any order, lack (nothing is there, then) or lie on another grid that is parallel to the image's:
    each voxel then takes the nearest of them.
    """

    def __init__(self, file: Mapping[str, Any], pixels: NDArray[np.generic], image: Stack, volume: Volume) -> None:
        self._file, self._pixels = file, pixels
        super().__init__(tuple(segment_of(s) for s in self._file["segments"]), volume.array.shape[1:])
        uids = self._file["references"]
        named = {uids[i] for frame in self._file["frames"] for i, _ in frame["sources"]} or set(uids)
        check_belongs(self._file["frame_of_reference"], named, image)
        if drawn_elsewhere(named, image):
            self.warn("label-reference", "was drawn on other images than this volume's", _ELSEWHERE)
        if len(self.shape) == 2:
            self._places = _picture(self._file, image, self.shape)
        else:
            self._places = _volume(self._file, image, grid_of(volume))
        self._note_places()

    def mask(self, number: int) -> Mask:
        """The segment on the image's grid; see `Structures`."""
        # Slices lie on the last axis most often; so they are in one piece, which is much faster.
        out = np.zeros(self.shape, dtype=bool, order="F")
        lost = placed = 0
        for frame, where in zip(self._file["frames"], self._places, strict=True):
            if frame["row"] < 0 or frame["segment"] not in (None, number):
                continue
            source = self._frame(frame["row"], number)
            if not source.any():
                continue
            if where is None:
                out |= source
                continue
            source = source.T[..., np.newaxis]
            where.put(source, out)
            placed += 1
            lost += where.loses(source)
        if lost and not out.any():
            raise Misfit("label-outside", f"all of segment {number} lies outside the image", _ELSEWHERE)
        if lost:
            what = f"{lost} of {placed} frames of segment {number} reach outside the image and are cut"
            self.warn("label-outside", what, "Right if the image shows only a part of what was segmented.")
        return out

    def _frame(self, row: int, number: int) -> Mask:
        """`(rows, columns)` of one segment."""
        shape = (self._file["rows"], self._file["columns"])
        if self._file["kind"] == "LABELMAP":
            return np.asarray(self._pixels[row] == number).reshape(shape)
        bits = np.unpackbits(self._pixels[row], count=shape[0] * shape[1], bitorder="little")
        return bits.astype(bool).reshape(shape)

    def _note_places(self) -> None:
        places = [p for p, f in zip(self._places, self._file["frames"], strict=True) if p and f["row"] >= 0]
        apart = max((max(p.apart) for p in places if not p.exact), default=None)
        if apart is not None:
            what = f"lies on another grid; each voxel takes the nearest, up to {apart:.2g} voxels away"
            self.warn("label-resampled", what, "Segment on the image itself where this is too coarse.")


def segment_of(item: Mapping[str, Any]) -> Segment:
    """A segment as the child process describes it."""
    code, category = (Code(**item[key]) if item[key] else None for key in ("code", "category"))
    return Segment(item["number"], item["name"], code, category)


def _picture(file: Mapping[str, Any], image: Stack, shape: tuple[int, ...]) -> list[Placing | None]:
    """Frames of a picture lie on it as they are."""
    if (file["rows"], file["columns"]) != shape:
        what = f"the label has {file['rows']} × {file['columns']} pixels, the image {shape[0]} × {shape[1]}"
        raise Misfit("label-grid", what, _ELSEWHERE)
    uids = file["references"]
    if any(uids[i] not in image.instances for frame in file["frames"] for i, _ in frame["sources"]):
        raise Misfit("label-frame", "some frames of the label are of another picture", _ELSEWHERE)
    return [None] * len(file["frames"])


def _volume(file: Mapping[str, Any], image: Stack, grid: Grid) -> list[Placing | None]:
    slices = slices_of(image, grid)
    axis = slice_axis(image, grid)
    thickness = float(np.linalg.norm(image.affine[:3, 2]))
    gap = _gap(file["frames"])
    uids = file["references"]
    places: list[Placing | None] = []
    for frame in file["frames"]:
        named = {slices[key] for i, n in frame["sources"] if (key := (uids[i], n)) in slices}
        own = _frame_grid(frame, file, image, named, _depth(frame, gap, thickness))
        found = place(own, grid)
        if len(named) == 1:
            away = abs(grid.voxels(own.affine[np.newaxis, :3, 3])[0, axis] - (index := named.pop()))
            if away * thickness > max(own.spacing[2], thickness) * (0.5 + TOLERANCE):
                what = "a frame lies elsewhere than the slice that it names"
                raise Misfit("label-place", what, "Export the label again.")
            if away <= TOLERANCE and not frame["depth"]:
                found = _on_slice(found, axis, index, grid.shape[axis])
        places.append(found)
    return places


def _frame_grid(frame: Mapping[str, Any], file: Mapping[str, Any], image: Stack, named: set[int], depth: float) -> Grid:
    """The grid (column, row, one slice) of a frame."""
    shape = (file["columns"], file["rows"], 1)
    if frame["position"] and frame["orientation"] and frame["spacing"]:
        across, down = np.array(frame["orientation"][:3]), np.array(frame["orientation"][3:])
        affine = np.eye(4)
        affine[:3, 0] = across * frame["spacing"][1]
        affine[:3, 1] = down * frame["spacing"][0]
        affine[:3, 2] = np.cross(across, down) * depth
        affine[:3, 3] = frame["position"]
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        if abs(np.linalg.det(affine)) > 0:
            return Grid(affine, shape)
        raise Misfit("label-grid", "a frame's orientation or pixel spacing cannot be right", "Export the label again.")
    if len(named) != 1 or shape[:2] != image.shape[:2]:
        raise Misfit("label-grid", "a frame says neither where it lies nor on which slice", "Export the label again.")
    affine = image.affine
    affine[:3, 3] += affine[:3, 2] * _stack_index(image, frame, file)
    return Grid(affine, shape)


def _stack_index(image: Stack, frame: Mapping[str, Any], file: Mapping[str, Any]) -> int:
    """The slice of `image` that the frame names."""
    uids = file["references"]
    named = {(uids[i], n) for i, n in frame["sources"]}
    return next(
        k
        for k, (uid, own) in enumerate(zip(image.instances, image.frames, strict=True))
        if (uid, own + 1) in named or (uid, None) in named
    )


def _gap(frames: list[dict[str, Any]]) -> float | None:
    """The smallest distance in mm between planes of the file; None for one plane or none."""
    known = [f for f in frames if f["position"] and f["orientation"]]
    if not known:
        return None
    across = np.array(known[0]["orientation"])
    normal = np.cross(across[:3], across[3:])
    gaps = np.diff(np.sort([np.dot(normal, f["position"]) for f in known]))
    return float(gaps[gaps > _ONE_PLANE].min()) if (gaps > _ONE_PLANE).any() else None


def _depth(frame: Mapping[str, Any], gap: float | None, thickness: float) -> float:
    """Distance in mm between planes of the label: what the file says, but not more than there is between two."""
    said = frame["depth"] or frame["thickness"] or thickness
    return min(said, gap) if gap else float(said)


def _on_slice(found: Placing, axis: int, index: int, number: int) -> Placing:
    """`found` on the one slice `index`, and none of its neighbours, however thick the frame says that it is."""
    only = np.full(number, -1)
    only[index] = 0
    indices = tuple(only if a == axis else i for a, i in zip(found.axes, found.indices, strict=True))
    apart = tuple(0.0 if a == axis else d for a, d in zip(found.axes, found.apart, strict=True))
    same = tuple(a == axis or s for a, s in zip(found.axes, found.same, strict=True))
    return replace(found, indices=indices, apart=apart, same=same)
