"""Faces in head scans: a surface from which a person can be known again is the patient's identity.

A head is a body of a head's size with air in front and beside it. Its front is a face where something stands out by
the middle as a nose does: farther in front of the cheeks than a round forehead would be.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from client.data.gate.codes import finding
from client.data.volume import Case, Finding, Stack

# mm by which the middle stands out. Made-up heads without a face reach 3, with a nose of 18 mm they begin at 15; a head
# that is turned by 20° loses a quarter of it, by 30° all.
SURE, LIKELY = 8.0, 5.0
# Body Part Examined of scans in which a face may be.
HEADS = ("HEAD", "BRAIN", "SKULL", "FACE", "ORBIT", "SINUS", "NECK", "JAW", "TMJ", "EAR", "EYE", "NOSE")
# mm: width of a head from ear to ear, depth from the back to the nose; adults and children.
_WIDTH, _DEPTH = (100.0, 215.0), (120.0, 265.0)
_GRID, _BESIDE, _TALL = 2.5, 30.0, 8.0


def relief(image: NDArray[np.float32], spacing: Sequence[float]) -> float:
    """Height in mm of what stands out at the front of a head; 0 for pictures and for what is not a head.

    Args:
        image: `(X, Y, Z)` in RAS+ order.
        spacing: Voxel size in mm.
    """
    if image.ndim != 3:
        return 0.0
    step = [max(1, round(_GRID / s)) for s in spacing]
    coarse = image[:: step[0], :: step[1], :: step[2]]
    size = np.array(spacing) * step
    extent = np.array(coarse.shape) * size
    if min(coarse.shape) < 4 or extent[0] < _WIDTH[0] or extent[1] < _DEPTH[0]:
        return 0.0
    body = _body(coarse)
    heights = [_stands_out(body[:, :, k], size) for k in range(body.shape[2])]
    known = np.array([h for h in heights if h is not None])
    # Half of the slices that show anything must be a head's: a trunk has a head's width at the neck only.
    if known.size * 2 < np.count_nonzero(body.any(axis=(0, 1))) or not known.size:
        return 0.0
    tall = max(1, round(_TALL / size[2]))
    lasting = ndimage.minimum_filter1d([h if h is not None else 0.0 for h in heights], tall)
    return float(max(lasting.max(), 0.0))


def check_face(case: Case, height: float, modality: str | None) -> list[Finding]:
    """`face`: a head scan shows the face.

    With a header that says head, `LIKELY` mm of relief are enough; without one it takes `SURE`; with a header that
    names another part of the body nothing is said.

    Args:
        case: Its DICOM headers are asked for the body part.
        height: `relief` of its first channel.
        modality: The study's; only CT and MR show skin.
    """
    first = case.images[0]
    part = str(first.facts.get("body_part", "")).upper() if isinstance(first, Stack) else ""
    head = any(name in part for name in HEADS)
    if modality not in (None, "CT", "MR") or height < (LIKELY if head else SURE) or (part and not head):
        return []
    what = f"{first}: the field of view holds a face (it stands out by {height:.0f} mm)"
    return [finding("face", case.id, what)]


def _body(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest connected part that is not air, holes filled slice by slice."""
    low = float(np.percentile(image, 1))
    # Air in CT; in MR tissue is far from one brightness, so half of what parts bright from dark.
    level = -300.0 if low < -500 else low + 0.5 * (float(threshold_otsu(image)) - low) if image.max() > low else low
    mask = ndimage.binary_opening(image > level)
    for k in range(mask.shape[2]):
        mask[:, :, k] = ndimage.binary_fill_holes(mask[:, :, k])
    parts, number = ndimage.label(mask)
    if not number:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = parts == sizes.argmax()
    return largest


def _stands_out(mask: NDArray[np.bool_], size: NDArray[np.float64]) -> float | None:
    """mm by which the front `(X, Y)` stands out over an ellipse of its width and depth; None if not a head's slice."""
    columns, rows = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not columns.size:
        return None
    width, depth = np.ptp(columns) * size[0], np.ptp(rows) * size[1]
    free = columns[0] > 0 and columns[-1] < mask.shape[0] - 1 and rows[-1] < mask.shape[1] - 1
    if not (free and _WIDTH[0] <= width <= _WIDTH[1] and _DEPTH[0] <= depth <= _DEPTH[1]):
        return None
    front = np.where(mask.any(axis=1), mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1), 0) * size[1]
    beside = round(_BESIDE / size[0])
    middle = round(columns.mean())
    near = np.arange(max(middle - beside, beside), min(middle + beside, mask.shape[0] - 1 - beside) + 1)
    if not near.size:
        return None
    out = front[near] - np.maximum(front[near - beside], front[near + beside])
    round_front = depth / 2 * (1 - np.sqrt(max(0.0, 1 - (2 * _BESIDE / width) ** 2)))
    return float(out.max() - round_front)
