"""One loss over all outputs of a deeply supervised net."""

from collections.abc import Sequence

import torch
from torch import nn


def head_weights(heads: int) -> list[float]:
    """nnU-Net's weights of `heads` outputs, finest first: 1/2^i, the coarsest 0, divided by their sum.

    A single output has weight 1; of two, the coarser one has none.

    Source: Isensee et al. 2021, supplement.
    """
    if heads == 1:
        return [1.0]
    raw = [0.5**i for i in range(heads - 1)]
    return [w / sum(raw) for w in raw] + [0.0]


class DeepSupervision(nn.Module):
    """The weighted sum of `loss` over a list of logits, finest first; a single tensor has weight 1.

    The label map is brought to each output's grid by nearest neighbour. Outputs of weight 0 are not looked
    at.

    Args:
        loss: Of logits and a label map.
        weights: One per output, finest first; none for nnU-Net's.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = weights

    def forward(self, logits: torch.Tensor | list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)`, or a list of them, against labels `(B, *S)`.

        Raises:
            ValueError: The weights are not as many as the outputs.
        """
        if isinstance(logits, torch.Tensor):
            loss: torch.Tensor = self.loss(logits, target)
            return loss
        weights = head_weights(len(logits)) if self.weights is None else self.weights
        if len(weights) != len(logits):
            raise ValueError(f"training.head_weights has {len(weights)} numbers, but the net {len(logits)} outputs")
        total = torch.zeros((), device=target.device)
        for weight, head in zip(weights, logits, strict=True):
            if weight:
                total = total + weight * self.loss(head, nearest(target, head.shape[2:]))
        return total


def nearest(target: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Labels `(B, *S)` on a grid of `size`: each takes the label at its centre (`nearest-exact`)."""
    for axis, (old, new) in enumerate(zip(target.shape[1:], size, strict=True), start=1):
        if old != new:
            index = (2 * torch.arange(new, device=target.device) + 1) * old // (2 * new)
            target = target.index_select(axis, index)
    return target
