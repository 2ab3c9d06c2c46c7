"""Whether a DICOM label belongs to an image: the rule by which it may be put on the image's grid."""

from collections.abc import Collection

import numpy as np

from client.data.structures.model import Misfit
from client.data.structures.placing import Grid
from client.data.volume import Source, Stack, Volume


def stack_of(image: Source) -> Stack:
    """`image`, if it is a DICOM volume.

    Raises:
        Misfit: It is a file of another format, which has no frame of reference.
    """
    if isinstance(image, Stack):
        return image
    raise Misfit(
        "label-frame",
        "a DICOM label, but the image is no DICOM series: nothing says that they belong together",
        "List the DICOM series as the image, or convert the label to the image's format.",
    )


def belongs(frame_of_reference: str, references: Collection[str], image: Stack) -> bool:
    """Whether the label's frame of reference is the image's, or all instances that it refers to are the image's.

    Scanners exist that give every slice of a series a frame of reference of its own; only instances tell then.
    """
    same = bool(frame_of_reference) and set(image.frame_of_reference) == {frame_of_reference}
    return same or (bool(references) and set(references) <= set(image.instances))


def check_belongs(frame_of_reference: str, references: Collection[str], image: Stack) -> None:
    """Raise Misfit unless the label belongs to the image."""
    if not belongs(frame_of_reference, references, image):
        raise Misfit(
            "label-frame",
            "the label has another frame of reference than the image, and refers to images that are not of it",
            "Find the series on which it was drawn, or the label of this series.",
        )


def drawn_elsewhere(references: Collection[str], image: Stack) -> bool:
    """Whether the label names the images on which it was drawn, and none of them is of this volume."""
    return bool(references) and not set(references) & set(image.instances)


def grid_of(volume: Volume) -> Grid:
    """The voxel grid of an image `(C, X, Y, Z)`."""
    return Grid(np.asarray(volume.affine, dtype=np.float64), volume.array.shape[1:])


def slice_axis(image: Stack, grid: Grid) -> int:
    """The axis of `grid`, which has the voxels of `image` in another order, along which its slices lie."""
    direction = np.linalg.inv(grid.affine[:3, :3]) @ image.affine[:3, 2]
    return int(np.argmax(np.abs(direction)))


def slices_of(image: Stack, grid: Grid) -> dict[tuple[str, int | None], int]:
    """Index along `slice_axis` of each slice, by SOP instance and 1-based frame; by None where it has one frame."""
    axis = slice_axis(image, grid)
    corner = np.zeros((len(image.instances), 3))
    corner[:, 2] = np.arange(len(corner))
    places = grid.voxels(corner @ image.affine[:3, :3].T + image.affine[:3, 3])[:, axis]
    index = np.rint(places).astype(int).tolist()
    alone = {uid for uid in image.instances if image.instances.count(uid) == 1}
    found: dict[tuple[str, int | None], int] = {}
    for uid, frame, place in zip(image.instances, image.frames, index, strict=True):
        found[uid, frame + 1] = place
        if uid in alone:
            found[uid, None] = place
    return found
