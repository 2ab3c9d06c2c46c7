"""RT structure sets on an image's grid."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data.structures.belonging import check_belongs, drawn_elsewhere, grid_of, slice_axis
from client.data.structures.model import Code, Mask, Misfit, Segment, Structures
from client.data.structures.polygons import fill
from client.data.volume import Stack, Volume

# Of a slice's thickness: contours so near to its middle lie on it; decimals in headers put them there.
ON_PLANE = 0.1
# Of a slice's thickness: contours that differ by less were drawn on one plane.
ONE_PLANE = 0.25

# PS3.3 C.8.8.6.3. The second kind says of itself that contours of a plane are combined by exclusive or.
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_EXPORT = "Export the contours of this very series, or find the series on which they were drawn."

_Points = NDArray[np.float64]


class StructureSet(Structures):
    """Contours, filled exactly: a voxel is in when its centre lies within them or on them (see `polygons.fill`).

    Contours of one plane are combined by the even-odd rule. A contour off the slices' middles belongs to the nearest
    slice, at most half a slice away.
    """

    def __init__(self, file: Mapping[str, Any], points: _Points, image: Stack, volume: Volume) -> None:
        self._file, self._points = file, points
        self._rois = {roi["number"]: roi for roi in self._file["rois"]}
        super().__init__(tuple(roi_of(roi) for roi in self._file["rois"]), volume.array.shape[1:])
        if volume.array.ndim != 4:
            raise Misfit("label-grid", "contours for a picture", "Contours are read for volumes only.")
        self._image = image
        self._grid = grid_of(volume)
        self._axis = slice_axis(image, self._grid)

    def mask(self, number: int) -> Mask:
        """The structure on the image's grid; see `Structures`."""
        roi = self._rois[number]
        # Slices lie on the last axis most often; so they are in one piece, which is much faster.
        out = np.zeros(self.shape, dtype=bool, order="F")
        contours = self._closed(roi)
        if not contours:
            return out
        self._check_belongs(roi)
        planes, polygons = self._on_planes(contours)
        inside = (planes >= -0.5) & (planes < self.shape[self._axis] - 0.5)
        if not inside.any():
            raise Misfit("label-outside", f"all of {roi['name']} lies outside the image", _EXPORT)
        if not inside.all():
            what = f"{int((~inside).sum())} of {len(planes)} contours of {roi['name']} lie outside the image"
            self.warn("label-outside", what, "Right if the image shows only a part of what was drawn.")
        kept = np.flatnonzero(inside)
        self._fill(out, roi["name"], planes[kept], [polygons[i] for i in kept])
        return out

    def _closed(self, roi: dict[str, Any]) -> list[_Points]:
        """The closed contours of three points and more, each once."""
        points = [self._points[c["start"] : c["start"] + c["count"]] for c in roi["contours"]]
        other = Counter(c["kind"] or "no kind" for c in roi["contours"] if c["kind"] not in _CLOSED)
        if other:
            kinds = ", ".join(f"{n} × {kind[:32]}" for kind, n in sorted(other.items()))
            self.warn("contour-open", f"{roi['name']}: contours that enclose nothing are left out ({kinds})",
                      "Right if they are marks; else draw them closed.")  # fmt: skip
        closed = [p for p, c in zip(points, roi["contours"], strict=True) if c["kind"] in _CLOSED]
        few = sum(len(p) < 3 for p in closed)
        if few:
            self.warn("contour-points", f"{roi['name']}: {few} contours of fewer than three points are left out",
                      "Right if they are stray clicks; else draw them again.")  # fmt: skip
        once = {p.tobytes(): p for p in closed if len(p) >= 3}
        if len(once) < len(closed) - few:
            what = f"{roi['name']}: {len(closed) - few - len(once)} contours stand twice and are taken once"
            self.warn("contour-twice", what, "Export the structures again.")
        return list(once.values())

    def _check_belongs(self, roi: dict[str, Any]) -> None:
        uids = self._file["references"]
        own = {uids[i] for c in roi["contours"] for i in c["sources"]} or {uids[i] for i in self._file["named"]}
        check_belongs(roi["frame_of_reference"], own, self._image)
        if drawn_elsewhere(own, self._image):
            self.warn("label-reference", "was drawn on other images than this volume's", _EXPORT)

    def _on_planes(self, contours: Sequence[_Points]) -> tuple[_Points, list[_Points]]:
        """Each contour's place along the slices, in slices, and its points within the plane, in voxels."""
        planes, polygons = [], []
        for contour in contours:
            voxels = self._grid.voxels(contour * [-1.0, -1.0, 1.0])
            along = voxels[:, self._axis]
            if np.ptp(along) > 0.5:
                raise Misfit("label-plane", "contours are turned against the image's slices", _EXPORT)
            planes.append(float(along.mean()))
            polygons.append(np.delete(voxels, self._axis, axis=1))
        return np.array(planes), polygons

    def _fill(self, out: Mask, name: str, planes: _Points, polygons: Sequence[_Points]) -> None:
        index = np.floor(planes + 0.5).astype(np.int64)
        off = np.abs(planes - index)
        view = np.moveaxis(out, self._axis, 0)
        crowded = 0
        for k in np.unique(index):
            own = np.flatnonzero(index == k)
            # Where planes lie closer than the slices, the nearest counts; together they would cancel each other.
            near = own[np.abs(planes[own] - planes[own[off[own].argmin()]]) <= ONE_PLANE]
            crowded += len(own) - len(near)
            view[k] = fill([polygons[i] for i in near], view[k].shape)
        if off.max() > ON_PLANE:
            what = f"{name}: contours lie up to {off.max():.2g} slices off the slices' middles; the nearest takes each"
            if crowded:
                what += f" ({crowded} contours of further planes are left out)"
            self.warn("label-plane", what, _EXPORT)
        missing = int(np.ptp(index)) + 1 - len(np.unique(index))
        if missing:
            self.warn("contour-gap", f"{name}: {missing} slices between its contours have none",
                      "Right for separate parts; else let the planning system interpolate before export.")  # fmt: skip


def roi_of(roi: Mapping[str, Any]) -> Segment:
    """A structure as the child process describes it."""
    code, category = (Code(**roi[key]) if roi[key] else None for key in ("code", "category"))
    return Segment(roi["number"], roi["name"], code, category, drawn=bool(roi["contours"]))
