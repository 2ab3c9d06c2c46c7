"""Losses that compare distributions voxel by voxel."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import Card, described
from common.labels import IGNORE
from common.losses.labelled import at_least_fp32, labelled, voxel_weights, weighted_mean
from common.losses.maps import border_weights, on_cpu

ClassWeights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2)]


@described(
    Card(
        title="Cross-entropy",
        source="Ronneberger et al. 2015, MICCAI, arXiv 1505.04597 (border weights)",
        suited="Labels of similar sizes; with `border`, touching cells that must be told apart.",
    )
)
class CELoss(nn.Module):
    """Cross-entropy, mean over the voxels.

    Args:
        class_weights: One weight per class, the background first; the mean is then weighted (divided by the
            sum of the voxels' weights). None weighs all alike.
        border: w0 of U-Net's border map, 10 in the paper: narrow gaps between objects weigh up to this much more.
            Objects are connected parts of the patch's labels; on the CPU it takes a distance map for each.
        border_sigma: σ of the border map in voxels: how wide a gap is still narrow.
    """

    def __init__(
        self,
        *,
        class_weights: ClassWeights | None = None,
        border: Annotated[float, Field(ge=0, le=1000)] = 0.0,
        border_sigma: Annotated[float, Field(gt=0, le=100)] = 5.0,
    ) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.border, self.sigma = border, border_sigma

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; ValueError unless there are K weights."""
        logits = at_least_fp32(logits)
        if self.class_weights is None and not self.border:
            total = F.cross_entropy(logits, target, reduction="sum", ignore_index=IGNORE)
            return total / labelled(target).sum().clamp(min=1)
        weights = voxel_weights(logits, target, self.class_weights)
        if self.border:
            weights = weights + on_cpu(lambda label: border_weights(label, self.border, self.sigma), target, weights)
        return weighted_mean(F.cross_entropy(logits, target, reduction="none", ignore_index=IGNORE), weights)


@described(
    Card(
        title="Focal",
        source="Lin et al. 2017, ICCV, arXiv 1708.02002",
        suited="Few voxels of foreground among many easy ones of background.",
    )
)
class FocalLoss(nn.Module):
    """Focal loss, −(1 − p)^γ · log p of the true class, mean over the voxels.

    Args:
        gamma: γ: how little a voxel counts that is already right; 0 is cross-entropy.
        class_weights: The paper's α for each class; see CELoss.
    """

    def __init__(
        self, *, gamma: Annotated[float, Field(ge=0, le=10)] = 2.0, class_weights: ClassWeights | None = None
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.class_weights = class_weights

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; ValueError unless there are K weights."""
        logits = at_least_fp32(logits)
        known = labelled(target)
        log_p = torch.log_softmax(logits, dim=1).gather(1, (target * known).unsqueeze(1)).squeeze(1)
        # A γ below 1 has no slope at a voxel that is wholly right.
        wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
        return weighted_mean(-(wrong**self.gamma) * log_p, voxel_weights(logits, target, self.class_weights))


@described(
    Card(
        title="Entropy of what is not labelled",
        source="Anthimopoulos et al. 2019 (LungNet), IEEE JBHI, doi:10.1109/JBHI.2018.2818620",
        suited="A small term in a `sum` beside a loss on the labelled voxels, for sparse annotation.",
    )
)
class EntropyLoss(nn.Module):
    """Entropy −Σ p·log p of the voxels without a label (`data.ignore`), mean over them: it wants a decision there.

    It looks at no label, and is 0 where every voxel has one. LungNet takes only voxels within the lung; here all
    that have the value `data.ignore` count.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` where labels `(B, *S)` are IGNORE."""
        log_p = torch.log_softmax(at_least_fp32(logits), dim=1)
        entropy = -(log_p.exp() * log_p).sum(1)
        return weighted_mean(entropy, (~labelled(target)).to(entropy.dtype))
