"""Losses that measure overlap, label by label: from Σpt, Σp and Σt over the labelled voxels."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from common.cards import Card, described
from common.losses.labelled import shares

Smooth = Annotated[float, Field(gt=0, le=1)]
# A fractional power has no slope at 0, where a label without any error lies.
_LEAST = 1e-7


class _Overlap(nn.Module, ABC):
    """Sums the probabilities of each label and leaves to `cost` what they are worth."""

    def __init__(self, background: bool, batch: bool, smooth: float) -> None:
        super().__init__()
        self.first = 0 if background else 1
        self.batch = batch
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; computed in fp32 or better."""
        p, truth = shares(logits, target)
        axes = [axis for axis in range(p.ndim) if axis != 1 and (axis != 0 or self.batch)]
        both, found, there = (x.sum(axes)[..., self.first :] for x in (p * truth, self.size(p), truth))
        return self.cost(both, found, there).mean()

    def size(self, p: torch.Tensor) -> torch.Tensor:
        """What a voxel of probability `p` adds to the size of the prediction."""
        return p

    @abstractmethod
    def cost(self, both: torch.Tensor, found: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """What Σpt, Σp and Σt cost, each `(labels)` or `(B, labels)`."""


@described(
    Card(
        title="Soft Dice",
        source="Milletari et al. 2016, 3DV, arXiv 1606.04797; plain sums as in Isensee et al. 2021, "
        "doi:10.1038/s41592-020-01008-z",
        suited="Small structures in large backgrounds; what is judged by Dice.",
    )
)
class DiceLoss(_Overlap):
    """Soft Dice loss, 1 − (2·Σpt + s) / (Σp + Σt + s), averaged over the labels.

    A label that no voxel of the group has (the group is the batch, or one item) counts 1 − s / (Σp + s): 0
    where nothing is predicted and nearly 1 elsewhere. With `batch`, a patch without foreground therefore only
    adds to Σp.

    Args:
        background: Whether the background counts as a label.
        batch: Sum over all items of a batch before dividing; else Dice of each item, then the mean.
        smooth: s in numerator and denominator.
        squared: Σp² instead of Σp, as in V-Net; else plain sums, as in nnU-Net.
    """

    def __init__(
        self, *, background: bool = False, batch: bool = True, smooth: Smooth = 1e-5, squared: bool = False
    ) -> None:
        super().__init__(background, batch, smooth)
        self.squared = squared

    def size(self, p: torch.Tensor) -> torch.Tensor:
        """`p` or its square; of the truth, 0 or 1, both are the same."""
        return p * p if self.squared else p

    def cost(self, both: torch.Tensor, found: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """1 − Dice of each label."""
        return 1 - (2 * both + self.smooth) / (found + there + self.smooth)


@described(
    Card(
        title="Generalised Dice",
        source="Sudre et al. 2017, DLMIA, arXiv 1707.03237; the three weightings: Shen et al. 2018, arXiv 1801.05912",
        suited="Labels of very different sizes; `square` wants a higher learning rate than `uniform`.",
    )
)
class GeneralizedDiceLoss(_Overlap):
    """Generalised Dice loss, 1 − (2·Σ w·Σpt + s) / (Σ w·(Σp + Σt) + s), the outer sums over the labels.

    The weights are divided by the largest of them, so that s means the same for all three. A label that no voxel
    of the group has gets the largest weight of those that are there (1 if none is): predicting it costs.

    Args:
        weights: A label of f voxels weighs 1 (`uniform`), 1/f (`simple`) or 1/f² (`square`).
        background: Whether the background counts as a label; Sudre counts it.
        batch: See DiceLoss.
        smooth: See DiceLoss.
    """

    def __init__(
        self,
        *,
        weights: Literal["uniform", "simple", "square"] = "square",
        background: bool = True,
        batch: bool = True,
        smooth: Smooth = 1e-5,
    ) -> None:
        super().__init__(background, batch, smooth)
        self.power = ("uniform", "simple", "square").index(weights)

    def cost(self, both: torch.Tensor, found: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """1 − Dice of all labels together: a scalar or `(B)`."""
        present = there > 0
        weight = torch.where(present, there.clamp(min=1) ** -self.power, 0)
        top = weight.amax(-1, keepdim=True)
        weight = torch.where(present, weight / torch.where(top > 0, top, 1), 1)
        overlap, sizes = (weight * both).sum(-1), (weight * (found + there)).sum(-1)
        return 1 - (2 * overlap + self.smooth) / (sizes + self.smooth)


@described(
    Card(
        title="Soft Jaccard (IoU)",
        source="Rahman & Wang 2016, ISVC, doi:10.1007/978-3-319-50835-1_22",
        suited="As Dice, with more weight on labels that are found badly.",
    )
)
class JaccardLoss(_Overlap):
    """Soft Jaccard loss, 1 − (Σpt + s) / (Σp + Σt − Σpt + s), averaged over the labels.

    Args:
        background: See DiceLoss.
        batch: See DiceLoss.
        smooth: See DiceLoss.
    """

    def __init__(self, *, background: bool = False, batch: bool = True, smooth: Smooth = 1e-5) -> None:
        super().__init__(background, batch, smooth)

    def cost(self, both: torch.Tensor, found: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """1 − intersection over union of each label."""
        return 1 - (both + self.smooth) / (found + there - both + self.smooth)


FalseWeight = Annotated[float, Field(gt=0, le=10)]


@described(
    Card(
        title="Tversky",
        source="Salehi et al. 2017, MLMI, arXiv 1706.05721",
        suited="Small lesions that must not be missed: false negatives cost more than false positives.",
    )
)
class TverskyLoss(_Overlap):
    """Tversky loss, 1 − (TP + s) / (TP + α·FP + β·FN + s), averaged over the labels; α = β = ½ is Dice.

    TP = Σpt, FP = Σp(1 − t), FN = Σ(1 − p)t.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        background: See DiceLoss.
        batch: See DiceLoss.
        smooth: See DiceLoss.
    """

    def __init__(
        self,
        *,
        alpha: FalseWeight = 0.3,
        beta: FalseWeight = 0.7,
        background: bool = False,
        batch: bool = True,
        smooth: Smooth = 1e-5,
    ) -> None:
        super().__init__(background, batch, smooth)
        self.alpha, self.beta = alpha, beta

    def cost(self, both: torch.Tensor, found: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """1 − Tversky index of each label."""
        false = self.alpha * (found - both) + self.beta * (there - both)
        return 1 - (both + self.smooth) / (both + false + self.smooth)


@described(
    Card(
        title="Focal Tversky",
        source="Abraham & Khan 2019, ISBI, arXiv 1810.07842",
        suited="As Tversky, where some labels are much harder than others.",
    )
)
class FocalTverskyLoss(TverskyLoss):
    """Focal Tversky loss, (1 − Tversky index)^(1/γ), averaged over the labels.

    Its slope grows without bound near a perfect label; an index within 10⁻⁷ of 1 has none. Abraham & Khan call
    the weight of false negatives α; here α weighs false positives as in TverskyLoss.

    Args:
        gamma: γ; 1 is the Tversky loss.
        alpha: See TverskyLoss.
        beta: See TverskyLoss.
        background: See DiceLoss.
        batch: See DiceLoss.
        smooth: See DiceLoss.
    """

    def __init__(
        self,
        *,
        gamma: Annotated[float, Field(ge=1, le=3)] = 4 / 3,
        alpha: FalseWeight = 0.3,
        beta: FalseWeight = 0.7,
        background: bool = False,
        batch: bool = True,
        smooth: Smooth = 1e-5,
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, background=background, batch=batch, smooth=smooth)
        self.exponent = 1 / gamma

    def cost(self, both: torch.Tensor, found: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """The power of each label's Tversky loss."""
        cost: torch.Tensor = super().cost(both, found, there).clamp(min=_LEAST) ** self.exponent
        return cost
