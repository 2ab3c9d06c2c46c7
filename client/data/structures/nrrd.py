"""3D Slicer's segmentations (.seg.nrrd) on an image's grid.

An NRRD label map whose header describes the segments: `SegmentN_Name`, `_LabelValue`, `_Layer`, `_Tags` (Slicer's
developer guide, "Segmentations"). It names neither patient nor frame of reference: its place alone ties it to an image.
`_Extent` is where a segment may be looked for; the voxels say it better.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from client.data.readers.nrrd import Nrrd, header_of, open_nrrd
from client.data.structures.belonging import grid_of
from client.data.structures.model import Code, Mask, Misfit, Segment, Structures
from client.data.structures.placing import Grid, place
from client.data.structures.snomed import current
from client.data.volume import Volume
from common.errors import DataError

_KEY = re.compile(r"Segment(\d{1,6})_(ID|Name|LabelValue|Layer|Tags)")
_TERMS = "TerminologyEntry:"


def describes_segments(path: Path) -> bool:
    """Whether the NRRD file at `path` says what its numbers mean."""
    return any(_KEY.fullmatch(key) for key in header_of(path))


def segments_of(path: Path) -> list[Segment]:
    """What the NRRD file at `path` describes, without its voxels; raises DataError when it cannot be read."""
    return [_segment(number, fields) for number, fields in _described(header_of(path)).items()]


def numbered(path: Path, stored: Nrrd) -> dict[int, Segment]:
    """Index in the header -> segment, with the number that it has for `SlicerSegmentation`; raises DataError as it."""
    described = _described(stored.header)
    numbers = _numbers([_where(path, index, fields, len(stored.array)) for index, fields in described.items()])
    return {i: _segment(number, fields) for number, (i, fields) in zip(numbers, described.items(), strict=True)}


class SlicerSegmentation(Structures):
    """A .seg.nrrd file; overlapping segments lie in layers."""

    def __init__(self, path: Path, volume: Volume) -> None:
        stored = open_nrrd(path)
        described = _described(stored.header)
        where = [_where(path, index, fields, len(stored.array)) for index, fields in described.items()]
        numbers = _numbers(where)
        super().__init__(tuple(map(_segment, numbers, described.values())), volume.array.shape[1:])
        self._array = stored.array
        self._where = dict(zip(numbers, where, strict=True))
        if volume.array.ndim != 4:
            raise Misfit("label-grid", "a segmentation of a volume for a picture", "Save the label as a picture.")
        self._target = grid_of(volume)
        # A single voxel stands for no voxels: the format cannot hold none.
        self._empty = stored.array[0].size == 1
        grid = Grid(stored.affine, stored.array.shape[1:])
        self._placing = None if self._empty else place(grid, self._target)
        if self._placing and not self._placing.exact:
            apart = max(self._placing.apart)
            what = f"lies on another grid; each voxel takes the nearest, up to {apart:.2g} voxels away"
            self.warn("label-resampled", what, "Segment on the image itself where this is too coarse.")

    def mask(self, number: int) -> Mask:
        """The segment on the image's grid; see `Structures`."""
        out = np.zeros(self.shape, dtype=bool)
        layer, value = self._where[number]
        if self._placing is None:
            return out
        source = np.asarray(self._array[layer] == value)
        self._placing.put(source, out)
        if self._placing.loses(source):
            if not out.any():
                what = f"all of segment {number} lies outside the image"
                raise Misfit("label-outside", what, "Find the image on which it was drawn.")
            what = f"segment {number} reaches outside the image and is cut"
            self.warn("label-outside", what, "Right if the image shows only a part of what was segmented.")
        return out


def _described(header: dict[str, Any]) -> dict[int, dict[str, str]]:
    """Segment index in the header -> its fields, ascending."""
    found: dict[int, dict[str, str]] = {}
    for key, value in header.items():
        if match := _KEY.fullmatch(key):
            found.setdefault(int(match[1]), {})[match[2]] = str(value)
    return dict(sorted(found.items()))


def _where(path: Path, index: int, fields: dict[str, str], layers: int) -> tuple[int, int]:
    """Layer and label value; files of Slicer before 4.11 have one layer per segment and no such fields."""
    try:
        layer, value = int(fields.get("Layer", index)), int(fields.get("LabelValue", 1))
    except ValueError:
        layer, value = -1, 0
    if not 0 <= layer < layers or value == 0:
        raise DataError(f"{path}: Segment{index} is in no layer of the file. Save it again with 3D Slicer.")
    return layer, value


def _numbers(where: list[tuple[int, int]]) -> list[int]:
    """A segment's number is its value, as in a label map without names; its place, from 1, if layers repeat values."""
    values = [value for _, value in where]
    return values if len(set(values)) == len(values) else list(range(1, len(values) + 1))


def _segment(number: int, fields: dict[str, str]) -> Segment:
    category, code = _terms(fields.get("Tags", ""))
    return Segment(number, fields.get("Name", fields.get("ID", "")).strip(), code, category)


def _terms(tags: str) -> tuple[Code | None, Code | None]:
    """Category and type in the segment's terminology entry: context~category~type~…, each scheme^code^meaning."""
    entry = next((t[len(_TERMS) :] for t in tags.split("|") if t.startswith(_TERMS)), "")
    parts = [part.split("^") for part in [*entry.split("~"), "", "", ""]]
    category, code = (Code(*current(p[1], p[0]), p[2]) if len(p) == 3 and p[1] else None for p in parts[1:3])
    return category, code
