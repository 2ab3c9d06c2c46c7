"""Sums of losses."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.losses.distribution import CELoss, ClassWeights
from common.losses.overlap import DiceLoss

Weight = Annotated[float, Field(gt=0, le=1000)]


class DiceCELoss(nn.Module):
    """Dice loss plus cross-entropy: overlap where labels are small, a smooth gradient everywhere.

    Args:
        dice: Weight of the Dice loss.
        ce: Weight of the cross-entropy.
        background: See DiceLoss.
        batch: See DiceLoss.
        smooth: See DiceLoss.
        class_weights: See CELoss.
    """

    def __init__(
        self,
        *,
        dice: Weight = 1.0,
        ce: Weight = 1.0,
        background: bool = False,
        batch: bool = True,
        smooth: Annotated[float, Field(gt=0, le=1)] = 1e-5,
        class_weights: ClassWeights | None = None,
    ) -> None:
        super().__init__()
        self.weights = (dice, ce)
        self.dice = DiceLoss(background=background, batch=batch, smooth=smooth)
        self.ce = CELoss(class_weights=class_weights)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`."""
        dice, ce = self.weights
        loss: torch.Tensor = dice * self.dice(logits, target) + ce * self.ce(logits, target)
        return loss
