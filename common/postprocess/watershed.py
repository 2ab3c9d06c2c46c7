"""Objects of one label that touch are told apart."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from skimage.measure import label as label_regions
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from common.cards import Card, described
from common.postprocess.steps import Labels, LabelStep, Mask, neighbourhood


@described(
    Card(
        title="Watershed split",
        source="Beucher & Lantuéjoul 1979, workshop in Rennes; Soille 2004, chapters 6 and 9 (h-maxima)",
        suited="Round objects that touch, such as cell nuclei, before they are counted one by one.",
    )
)
class Watershed(LabelStep):
    """Part touching objects of a label by a line of background, one voxel wide, at their necks.

    Objects are parted where the distance to the border, on the way from one object's middle to the other's, falls by
    more than `depth` below both. So a rough border makes no new objects. The label map stays one of structures: the
    line is all that shows the objects, which then are its connected components.

    Args:
        labels: Names of the labels that are treated; none: all.
        depth: By how much the neck is narrower, as a radius in mm (in pixels for pictures without a physical size).
    """

    def __init__(self, *, labels: Labels | None = None, depth: Annotated[float, Field(gt=0, le=100)] = 1.0) -> None:
        super().__init__(labels=labels)
        self.depth = depth

    def mask(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """`mask` without the lines between its objects."""
        return instances(mask, spacing, self.depth) > 0


def instances(mask: Mask, spacing: Sequence[float], depth: float) -> NDArray[np.int32]:
    """The objects of a mask, numbered from 1 in the order of the array; 0 is background and the lines between them.

    Args:
        mask: `(*S)`.
        spacing: Voxel size in mm of each axis.
        depth: See `Watershed`.
    """
    around = neighbourhood(None, mask.ndim)
    parts, _ = ndimage.label(mask, around)
    out = np.zeros(mask.shape, np.int32)
    count = 0
    for i, box in enumerate(ndimage.find_objects(parts), start=1):
        room = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        part = parts[room] == i
        objects = _split(part, spacing, depth, around)
        out[room][part] = np.where(objects[part] > 0, objects[part] + count, 0)
        count += int(objects.max())
    return out


def _split(part: Mask, spacing: Sequence[float], depth: float, around: Mask) -> NDArray[np.int32]:
    """The objects of one connected component."""
    if part.all():
        # Without a voxel of background there is no distance, and no neck.
        return part.astype(np.int32)
    distance = ndimage.distance_transform_edt(part, spacing)
    # Half a voxel everywhere in the component: one that is nowhere deeper than `depth` has its middle there.
    floor = np.where(part, min(spacing) / 2, 0.0)
    lowered = reconstruction(np.maximum(distance - depth, floor), np.maximum(distance, floor), footprint=around)
    middles = label_regions(local_maxima(lowered, footprint=around) & part, connectivity=part.ndim)
    return _parted(watershed(-distance, middles, around, mask=part).astype(np.int32), around)


def _parted(objects: NDArray[np.int32], around: Mask) -> NDArray[np.int32]:
    """`objects` with a line of 0 between them, taken from the one with the higher number.

    scikit-image can draw lines itself, but its time grows out of bounds in 3D.
    """
    lowest = ndimage.minimum_filter(np.where(objects > 0, objects, objects.max() + 1), footprint=around, mode="nearest")
    inside = np.where(lowest < objects, 0, objects)
    # A line may cut off crumbs; of each object the largest piece stays.
    pieces, n = ndimage.label(inside, around)
    sizes = np.bincount(pieces.ravel(), minlength=n + 1)
    owners = np.zeros(n + 1, np.int32)
    owners[pieces] = inside
    by_size = np.argsort(-sizes[1:], kind="stable") + 1
    largest = by_size[np.unique(owners[by_size], return_index=True)[1]]
    return np.where(np.isin(pieces, largest), inside, 0)
