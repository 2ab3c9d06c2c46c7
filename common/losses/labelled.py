"""What all losses have in common: in which precision they compute, and that voxels without a label do not count."""

from collections.abc import Sequence

import torch

from common.labels import IGNORE


def at_least_fp32(logits: torch.Tensor) -> torch.Tensor:
    """`logits` in fp32 if they come in half precision: sums over a million voxels need it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def labelled(target: torch.Tensor) -> torch.Tensor:
    """Which voxels of a label map `(B, *S)` have a label, as booleans of its shape."""
    return target != IGNORE


def shares(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the net gives each class and what is true.

    Args:
        logits: `(B, K, *S)`.
        target: `(B, *S)` int64, a class or IGNORE.

    Returns:
        Probabilities, in fp32 or better, and the 0/1 truth, both in the shape and memory layout of `logits`. Where
        there is no label both are 0 for every class, so that the voxel is in no sum and has no gradient.
    """
    known = labelled(target).unsqueeze(1)
    p = torch.softmax(at_least_fp32(logits), dim=1)
    # On a CPU the look is cheaper than the masking of every class; an accelerator would have to be waited for.
    if target.device.type == "cpu" and bool(known.all()):
        return p, torch.zeros_like(p).scatter_(1, target.unsqueeze(1), 1)
    truth = torch.zeros_like(p).scatter_(1, target.unsqueeze(1) * known, known.to(p.dtype))
    return p * known, truth


def voxel_weights(
    logits: torch.Tensor, target: torch.Tensor, class_weights: Sequence[float] | None = None
) -> torch.Tensor:
    """The weight of each voxel's class, 0 where there is no label: `(B, *S)` in the type of `logits` `(B, K, *S)`.

    Raises:
        ValueError: The weights are not one per class.
    """
    known = labelled(target)
    if class_weights is None:
        return known.to(logits.dtype)
    if len(class_weights) != logits.shape[1]:
        raise ValueError(
            f"loss.class_weights has {len(class_weights)} numbers, but there are "
            f"{logits.shape[1]} classes (the background counts)"
        )
    weights: torch.Tensor = logits.new_tensor(class_weights)[target * known] * known
    return weights


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ wv / Σ w over all voxels; 0, with a gradient of 0, where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
