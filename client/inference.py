"""From an image to class probabilities, and from probabilities to a label map on the case's own grid."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from client.data.boxes import clamp, cut, inner, smallest
from client.data.cache import load_image, load_meta
from client.data.preprocess import Grids, restore
from client.data.volume import CachedCase
from client.fixed_point import fixed_point
from client.training import autocast
from common.postprocess import Postprocess
from common.study import Study
from common.study_evaluation import FixedPoint

# Above this many numbers (4 GiB) the sum over the windows is kept in main memory instead of the accelerator's.
STITCH_ON_DEVICE = 2**30


def probabilities(net: nn.Module, image: NDArray[np.float32], study: Study, device: torch.device) -> Tensor:
    """What the net gives each class, voxel by voxel.

    An image that fits in the patch is padded to it, as in training: in the middle, its smallest value of each channel
    around it. A larger one is seen through windows of the patch's size that overlap by `study.evaluation.overlap`;
    their probabilities are averaged with Gaussian weights.

    Args:
        net: On `device`; its training mode is the same after as before.
        image: `(C, *S)` on the plan's grid.
        study: Patch, overlap, mirroring, precision.
        device: Where the net computes.

    Returns:
        `(K, *S)` float32, sum over K = 1; an inference tensor, on `device` or, if it is very large, on the CPU.
    """
    patch, shape = np.array(study.plan.patch), np.array(image.shape[1:])
    size = np.maximum(patch, shape)
    corner = clamp(np.zeros_like(shape), shape - size)
    x = torch.from_numpy(cut(image, corner, size, smallest(image)))[None]
    forward = functools.partial(_forward, net, study, device)
    if study.evaluation.mirror:
        forward = functools.partial(_mirrored, forward)
    with _evaluating(net), torch.inference_mode():
        result = forward(x.to(device)) if (size == patch).all() else _windows(forward, x, study, device)
        return result[0][:, *inner(corner, shape)]


def consensus(nets: Sequence[nn.Module], image: NDArray[np.float32], study: Study, device: torch.device) -> Tensor:
    """The mean `(K, *S)` of the nets' probabilities (Hansen & Salamon 1990, doi:10.1109/34.58871)."""
    total = probabilities(nets[0], image, study, device)
    with torch.inference_mode():
        for net in nets[1:]:
            total += probabilities(net, image, study, device)
        return total / len(nets) if len(nets) > 1 else total


def predict(
    nets: Sequence[nn.Module],
    image: NDArray[np.float32],
    spacing: Sequence[float],
    study: Study,
    device: torch.device,
) -> Tensor:
    """The nets' mean probabilities `(K, *S)` of `image`, whose voxels measure `spacing` mm, by the study's scheme."""
    look = functools.partial(consensus, nets, study=study, device=device)
    scheme = study.evaluation.scheme
    return fixed_point(look, image, spacing, scheme) if isinstance(scheme, FixedPoint) else look(image)


def label_map(values: Tensor, grids: Grids) -> NDArray[np.uint8]:
    """The most probable class of each voxel of the case's own grid.

    Probabilities are brought to that grid before the maximum is taken, so that borders are not stepped by the plan's
    voxels; class by class, so that only two classes are held at the own resolution.

    Args:
        values: `(K, *S)` on the plan's grid.
        grids: The case's own grid, and the plan's.

    Returns:
        `(*own shape)` uint8; of equal probabilities the lower label wins.
    """
    label, best = None, None
    for value, one in enumerate(values):
        mine = restore(one[None].cpu().numpy(), grids)[0]
        if label is None or best is None:
            label, best = np.zeros(mine.shape, np.uint8), np.array(mine)
        else:
            label[mine > best] = value
            np.maximum(best, mine, out=best)
    if label is None:
        raise ValueError("values hold no class")
    return label


def segment(nets: Sequence[nn.Module], case: CachedCase, study: Study, device: torch.device) -> NDArray[np.uint8]:
    """The label map of `case` on its own grid, by one net or by the consensus of several, post-processed."""
    meta = load_meta(case)
    return segment_image(nets, load_image(case), meta, study, device)


def segment_image(
    nets: Sequence[nn.Module],
    image: NDArray[np.float32],
    grids: Grids,
    study: Study,
    device: torch.device,
) -> NDArray[np.uint8]:
    """As `segment`, of an image `(C, *S)` on the plan's grid.

    Args:
        nets: One, or several whose mean counts.
        image: As `client.data.assemble.on_plan` gives it.
        grids: Its own grid, and the plan's.
        study: Everything else.
        device: Where the nets are.

    Returns:
        `(*own shape)` uint8, axes in RAS+ order.
    """
    steps, spacing = Postprocess(study), grids["plan"]["spacing"]
    with torch.inference_mode():
        values = predict(nets, image, spacing, study, device)
        if steps.sees_image:
            values = steps.probabilities(values, torch.from_numpy(np.array(image)).to(values.device), spacing)
    return steps.label_map(label_map(values, grids), grids["own"]["spacing"])


def _windows(forward: Callable[[Tensor], Tensor], x: Tensor, study: Study, device: torch.device) -> Tensor:
    """The windows' probabilities (1, K, *S), averaged with Gaussian weights."""
    large = study.classes * x[0, 0].numel() > STITCH_ON_DEVICE
    result = sliding_window_inference(
        x if large else x.to(device),
        roi_size=study.plan.patch,
        sw_batch_size=study.training.batch,
        predictor=forward,
        overlap=study.evaluation.overlap,
        mode="gaussian",
        sw_device=device,
        device=torch.device("cpu") if large else device,
    )
    return cast(Tensor, result)


def _forward(net: nn.Module, study: Study, device: torch.device, x: Tensor) -> Tensor:
    layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    with autocast(study.training, device):
        logits: Tensor = net(x.contiguous(memory_format=layout))
    return torch.softmax(logits.float(), dim=1)


def _mirrored(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of what `forward` gives for `x` and for its mirror images, each turned back."""
    axes = range(2, x.ndim)
    flips = [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]
    total = forward(x)
    for chosen in flips[1:]:
        total = total + forward(x.flip(chosen)).flip(chosen)
    return total / len(flips)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """`net` in evaluation mode; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
