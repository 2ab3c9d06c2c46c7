"""Small pictures of a prepared case: the middle slices in three directions with the outline of each label."""

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from common.labels import IGNORE

SIDE = 176
# Colours that people with colour-blindness tell apart on grey (Okabe and Ito), repeated after six labels.
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 204, 140), (240, 228, 66), (213, 94, 0), (204, 121, 167))


def panels(image: NDArray[np.generic], label: NDArray[np.generic], spacing: Sequence[float]) -> list[tuple[str, str]]:
    """Name and PNG (base64) of each direction; a picture has one, without a name.

    Volumes are shown as radiologists do: the patient's right on the left, front (or head) up.

    Args:
        image: `(C, *S)` in RAS+ order; its first channel is shown.
        label: `(*S)`.
        spacing: Voxel size in mm.
    """
    return [(name, _png(*_framed(grey, mask, size))) for name, grey, mask, size in _slices(image[0], label, spacing)]


def colour(number: int) -> str:
    """The colour of label `number` (from 1) for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[(number - 1) % len(COLOURS)])


_Slice = tuple[str, NDArray[np.generic], NDArray[np.generic], tuple[float, float]]


def _slices(image: NDArray[np.generic], label: NDArray[np.generic], spacing: Sequence[float]) -> Iterator[_Slice]:
    if image.ndim == 2:
        yield "", np.asarray(image), np.asarray(label), (spacing[0], spacing[1])
        return
    shown = (np.asarray(label) > 0) & (np.asarray(label) != IGNORE)
    middle = [_middle(shown, axis) for axis in range(3)]
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        rest = [a for a in range(3) if a != axis]
        at = tuple(middle[axis] if a == axis else slice(None) for a in range(3))
        # (across, up) -> rows from the top; the first of two remaining axes is seen from its far end in all three.
        yield name, np.asarray(image[at]).T[::-1, ::-1], np.asarray(label[at]).T[::-1, ::-1], (
            spacing[rest[1]], spacing[rest[0]],
        )  # fmt: skip


def _middle(mask: NDArray[np.bool_], axis: int) -> int:
    """The slice with the most labelled voxels; the middle one if there are none."""
    profile = mask.sum(axis=tuple(a for a in range(mask.ndim) if a != axis))
    return int(profile.argmax()) if profile.any() else mask.shape[axis] // 2


def _framed(
    grey: NDArray[np.generic], mask: NDArray[np.generic], size: tuple[float, float]
) -> tuple[Image.Image, Image.Image]:
    """Picture and mask with the longest side of `SIDE` pixels, square in mm."""
    extent = np.array(grey.shape) * size
    rows, columns = np.maximum(np.rint(extent / extent.max() * SIDE).astype(int), 1).tolist()
    values = grey.astype(np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    unit = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    picture = Image.fromarray((unit * 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.BILINEAR)
    outline = Image.fromarray(mask.astype(np.uint8)).resize((columns, rows), Image.Resampling.NEAREST)
    return picture, outline


def _png(picture: Image.Image, mask: Image.Image) -> str:
    pixels, labels = np.array(picture.convert("RGB")), np.array(mask)
    for number in [int(n) for n in np.unique(labels) if n not in (0, IGNORE)]:
        inside = labels == number
        # At the side of the picture a structure is open: there it has no outline.
        edge = inside & ~ndimage.binary_erosion(inside, iterations=2, border_value=1)
        pixels[edge] = COLOURS[(number - 1) % len(COLOURS)]
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode("ascii")
