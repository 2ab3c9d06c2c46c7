"""A case in three small pictures: the scan, the site's own mask on it, the model's mask on it."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from common.labels import IGNORE

SIDE = 220  # pixels of the longer side
FILL = 0.35  # how much of a label's colour lies over the scan
# Colours that people with colour-blindness tell apart on grey (Okabe and Ito 2008), again after six labels.
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 204, 140), (240, 228, 66), (213, 94, 0), (204, 121, 167))

Mask = NDArray[np.uint8]


def colour(value: int) -> str:
    """The colour of a label (from 1) for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[(value - 1) % len(COLOURS)])


def three(image: NDArray[np.float32], own: Mask, model: Mask, spacing: Sequence[float]) -> tuple[str, str, str]:
    """Scan, own mask, model's mask, as PNG in base64.

    Of a volume the axial slice is shown in which the two masks hold most, as radiologists do: the patient's right on
    the left, the front up.

    Args:
        image: `(*S)` in RAS+ order, or `(H, W)`.
        own: The site's mask, same shape.
        model: The model's.
        spacing: Voxel size in mm.
    """
    grey, mine, theirs = np.asarray(image), np.where(own == IGNORE, 0, own).astype(np.uint8), np.asarray(model)
    size = (spacing[0], spacing[1])
    if image.ndim == 3:
        held = ((mine > 0) | (theirs > 0)).sum(axis=(0, 1))
        k = int(held.argmax()) if held.any() else image.shape[2] // 2
        grey, mine, theirs = grey[:, :, k].T[::-1, ::-1], mine[:, :, k].T[::-1, ::-1], theirs[:, :, k].T[::-1, ::-1]
        size = (spacing[1], spacing[0])
    picture, shape = _scan(grey, size)
    return _png(picture), _png(_with(picture, mine, shape)), _png(_with(picture, theirs, shape))


def _scan(grey: NDArray[np.float32], size: tuple[float, float]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The slice in grey `(rows, columns, 3)`, square in mm; the brightest and darkest half per cent are cut."""
    extent = np.array(grey.shape) * size
    rows, columns = np.maximum(np.rint(extent / extent.max() * SIDE).astype(int), 1).tolist()
    low, high = np.percentile(grey, [0.5, 99.5])
    unit = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)
    scaled = Image.fromarray((unit * 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(scaled.convert("RGB")), (columns, rows)


def _with(picture: NDArray[np.uint8], mask: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.uint8]:
    scaled = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(shape, Image.Resampling.NEAREST))
    out = picture.astype(np.float32)
    for value in [int(v) for v in np.unique(scaled) if v]:
        inside, paint = scaled == value, np.array(COLOURS[(value - 1) % len(COLOURS)], np.float32)
        out[inside] = (1 - FILL) * out[inside] + FILL * paint
        # At the side of the picture a structure is open: there it has no outline.
        out[inside & ~ndimage.binary_erosion(inside, border_value=1)] = paint
    return out.astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> str:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode("ascii")
