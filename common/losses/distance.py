"""Losses that weigh errors by how far they lie from the surface."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import Card, described
from common.losses.labelled import labelled, shares, weighted_mean
from common.losses.maps import Floats, Mask, on_cpu, signed_distance, surface_distance


@described(
    Card(
        title="Boundary",
        source="Kervadec et al. 2019, MIDL, arXiv 1812.07032",
        suited="A small term in a `sum` beside an overlap loss, for small structures; alone it trains badly.",
    )
)
class BoundaryLoss(nn.Module):
    """Boundary loss: mean over labels and voxels of p · φ, φ the signed distance to the true surface in voxels.

    φ is negative inside, so the loss may be. For a label that is nowhere φ is 1, for one that is everywhere −1. A voxel
    without a label counts as outside of every label when distances are measured.

    Distance maps are made on one core of the CPU for each label of each item at every step: about 7 ms for 256², 0.07 s
    for 64³, 1 s for 128³.

    Args:
        background: See DiceLoss.
    """

    def __init__(self, *, background: bool = False) -> None:
        super().__init__()
        self.first = 0 if background else 1

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; computed in fp32 or better."""
        p, truth = (x[:, self.first :] for x in shares(logits, target))
        away = _maps(signed_distance, truth)
        return weighted_mean((p * away).mean(1), labelled(target).to(p.dtype))


@described(
    Card(
        title="Hausdorff distance by distance transforms",
        source="Karimi & Salcudean 2019, IEEE TMI, arXiv 1904.10030",
        suited="A small term in a `sum` beside an overlap loss, where single far errors matter.",
    )
)
class HausdorffLoss(nn.Module):
    """Hausdorff loss: mean over labels and voxels of (p − t)² · (d_p^α + d_t^α), d the distance to a surface in voxels.

    d_p is of the voxels with p above ½, and carries no gradient; it is 0 where there is no such surface. For a label
    that is nowhere, or everywhere, d_t is 1. A voxel without a label counts as outside of every label when distances
    are measured.

    It takes twice the distance maps of BoundaryLoss, and the probabilities are fetched from the accelerator for them.

    Args:
        alpha: α: how much more a far error costs than a near one.
        background: See DiceLoss.
    """

    def __init__(self, *, alpha: Annotated[float, Field(gt=0, le=4)] = 2.0, background: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.first = 0 if background else 1

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; computed in fp32 or better."""
        p, truth = (x[:, self.first :] for x in shares(logits, target))
        away = _maps(partial(surface_distance, without=0.0), p) ** self.alpha
        away = away + _maps(surface_distance, truth) ** self.alpha
        return weighted_mean(((p - truth) ** 2 * away).mean(1), labelled(target).to(p.dtype))


def _maps(distance: Callable[[Mask], Floats], share: torch.Tensor) -> torch.Tensor:
    """`distance` of each label of each item, made where `share` `(B, labels, *S)` is above ½, in its shape and type."""
    masks = (share > 0.5).flatten(0, 1)
    return on_cpu(distance, masks, share).reshape(share.shape)
