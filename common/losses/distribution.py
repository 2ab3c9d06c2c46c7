"""Losses that compare distributions voxel by voxel."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.losses.overlap import at_least_fp32

ClassWeights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2)]


class CELoss(nn.Module):
    """Cross-entropy, mean over the voxels.

    Args:
        class_weights: One weight per class, the background first; the mean is then weighted (divided by the
            sum of the voxels' weights). None weighs all alike.
    """

    def __init__(self, *, class_weights: ClassWeights | None = None) -> None:
        super().__init__()
        self.class_weights = class_weights

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; ValueError unless there are K weights."""
        logits = at_least_fp32(logits)
        if self.class_weights is None:
            return F.cross_entropy(logits, target)
        if len(self.class_weights) != logits.shape[1]:
            raise ValueError(
                f"loss.class_weights has {len(self.class_weights)} numbers, but there are "
                f"{logits.shape[1]} classes (the background counts)"
            )
        return F.cross_entropy(logits, target, weight=logits.new_tensor(self.class_weights))
