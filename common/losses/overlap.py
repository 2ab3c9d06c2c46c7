"""Losses that measure overlap."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn


class DiceLoss(nn.Module):
    """Soft Dice loss, 1 − (2·Σpt + s) / (Σp + Σt + s), averaged over the labels.

    A label that no voxel of the group has (the group is the batch, or one item) counts 1 − s / (Σp + s): 0
    where nothing is predicted and nearly 1 elsewhere. With `batch`, a patch without foreground therefore only
    adds to Σp.

    Args:
        background: Whether the background counts as a label.
        batch: Sum over all items of a batch before dividing; else Dice of each item, then the mean.
        smooth: s in numerator and denominator.

    Source: Milletari et al. 2016, with plain (not squared) sums as in nnU-Net.
    """

    def __init__(
        self,
        *,
        background: bool = False,
        batch: bool = True,
        smooth: Annotated[float, Field(gt=0, le=1)] = 1e-5,
    ) -> None:
        super().__init__()
        self.first = 0 if background else 1
        self.batch = batch
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; computed in fp32 or better."""
        p = torch.softmax(at_least_fp32(logits), dim=1)
        one_hot = one_hot_like(p, target)
        axes = [axis for axis in range(p.ndim) if axis != 1 and (axis != 0 or self.batch)]
        overlap = (p * one_hot).sum(axes)
        total = p.sum(axes) + one_hot.sum(axes)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return 1 - dice[..., self.first :].mean()


def at_least_fp32(logits: torch.Tensor) -> torch.Tensor:
    """`logits` in fp32 if they come in half precision: sums over a million voxels need it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def one_hot_like(p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Labels `(B, *S)` as 0/1 in the shape, type and memory layout of `p` `(B, K, *S)`."""
    return torch.zeros_like(p).scatter_(1, target.unsqueeze(1), 1)
