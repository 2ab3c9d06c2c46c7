"""Coarse to fine: a small structure is looked for in the whole image, then looked at again and again in its own box.

Source: Zhou Y. et al. 2017 (arXiv 1612.08230), for the pancreas. There one net is trained on whole slices and another
on boxes around the true organ, three of each for the three planes, whose votes are joined, and the margin is 20
pixels within the slice. Here both stages have one net, that of the study, in its own dimensions; the margin is in
millimetres; and the first look may be coarser, so that the net's window sees more of the image at once.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from client.data.preprocess import Floats, Grid, grid, resample
from client.metrics import dice
from common.study_evaluation import FixedPoint

Look = Callable[[Floats], Tensor]
Mask = NDArray[np.uint8]


@torch.inference_mode()
def fixed_point(look: Look, image: Floats, spacing: Sequence[float], scheme: FixedPoint) -> Tensor:
    """The probabilities of the last look; outside its box all is background.

    A coarse look that finds nothing is followed by one at the plan's voxel size. If nothing is found in a box, the
    result is that of the look before.

    Args:
        look: From an image `(C, *S)` to probabilities `(K, *S)`, for an image of any size.
        image: `(C, *S)` on the plan's grid.
        spacing: Its voxel size in mm.
        scheme: Coarseness, margin, rounds, agreement.
    """
    values = _coarse_look(look, image, scheme.coarse) if scheme.coarse > 1 else look(image)
    found = _found(values)
    if scheme.coarse > 1 and not found.any():
        values = look(image)
        found = _found(values)
    box = None
    for _ in range(scheme.rounds):
        last, box = box, _box(found, scheme.margin, spacing)
        if box is None or box == last:
            break
        fine = torch.zeros_like(values)
        fine[0] = 1
        fine[:, *box] = look(np.array(image[:, *box]))
        now = _found(fine)
        if not now.any():
            break
        (agreement,) = dice(now, found, 1)
        values, found = fine, now
        if agreement >= scheme.agreement:
            break
    return values


def _found(values: Tensor) -> Mask:
    """1 where any label is the most probable class."""
    mask: Mask = (values.argmax(0) > 0).cpu().numpy().astype(np.uint8)
    return mask


def _box(found: Mask, margin: float, spacing: Sequence[float]) -> tuple[slice, ...] | None:
    """The box that holds all that was found and `margin` mm around it, as far as the image goes."""
    box = ndimage.find_objects(found)
    if not box:
        return None
    room = [int(np.ceil(margin / s - 1e-6)) for s in spacing]
    return tuple(
        slice(max(0, side.start - m), min(n, side.stop + m))
        for side, m, n in zip(box[0], room, found.shape, strict=True)
    )


def _coarse_look(look: Look, image: Floats, factor: float) -> Tensor:
    """What `look` gives for the image with voxels `factor` times larger, on the image's own grid."""
    own, coarse = _grids(image.shape[1:], factor)
    values = look(resample(image, own, coarse))
    return torch.from_numpy(resample(values.cpu().numpy(), coarse, own)).to(values.device)


def _grids(shape: tuple[int, ...], factor: float) -> tuple[Grid, Grid]:
    """The image's own grid, in units of its voxels, and the coarser one of the same field of view."""
    sides = np.array(shape)
    fewer = np.maximum(1, np.round(sides / factor)).astype(int)
    step = sides / fewer
    affine = np.eye(4)
    n = len(shape)
    affine[range(n), range(n)] = step
    affine[:n, 3] = (step - 1) / 2
    return grid(shape, np.eye(4)), grid(tuple(fewer.tolist()), affine)
