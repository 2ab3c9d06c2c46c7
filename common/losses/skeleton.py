"""The loss that compares centre lines."""

from functools import reduce
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import Card, described
from common.losses.labelled import shares


@described(
    Card(
        title="Soft clDice (centre-line Dice)",
        source="Shit et al. 2021, CVPR, arXiv 2003.07311",
        suited="Vessels, airways, nerves: a term in a `sum` beside Dice, so that thin branches stay connected.",
    )
)
class ClDiceLoss(nn.Module):
    """Soft clDice loss, 1 − 2·P·R / (P + R), averaged over the labels.

    P = (Σ skel(p)·t + s) / (Σ skel(p) + s), R = (Σ skel(t)·p + s) / (Σ skel(t) + s). A label that no voxel of the
    group has counts 0 where nothing is predicted and more elsewhere. A voxel without a label counts as outside of every
    label when skeletons are made. Masks whose centre lines lie within each other are equal to it, and one that fills
    the patch has no centre line: it needs an overlap loss beside it. It costs some fifty times as much as Dice.

    Args:
        iterations: Steps of erosion; at least the largest radius of a tube in voxels.
        background: See DiceLoss.
        batch: See DiceLoss.
        smooth: s; 1 in the authors' code.
    """

    def __init__(
        self,
        *,
        iterations: Annotated[int, Field(ge=1, le=50)] = 3,
        background: bool = False,
        batch: bool = True,
        smooth: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.first = 0 if background else 1
        self.batch = batch
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`; computed in fp32 or better."""
        p, truth = (x[:, self.first :] for x in shares(logits, target))
        precision = self._within(soft_skeleton(p, self.iterations), truth)
        recall = self._within(soft_skeleton(truth, self.iterations), p)
        return (1 - 2 * precision * recall / (precision + recall)).mean()

    def _within(self, skeleton: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The share of `skeleton` that lies in `mask`: `(labels)` or `(B, labels)`."""
        axes = [axis for axis in range(mask.ndim) if axis != 1 and (axis != 0 or self.batch)]
        return ((skeleton * mask).sum(axes) + self.smooth) / (skeleton.sum(axes) + self.smooth)


def soft_skeleton(mask: torch.Tensor, iterations: int) -> torch.Tensor:
    """The centre lines of soft masks `(B, K, *S)`, values 0 … 1: what an opening takes away, gathered over erosions."""
    skeleton = _residue(mask)
    for _ in range(iterations):
        mask = _eroded(mask)
        new = _residue(mask)
        skeleton = skeleton + new * (1 - skeleton)
    return skeleton


def _residue(mask: torch.Tensor) -> torch.Tensor:
    """What opening `mask` (an erosion, then a dilation by the full neighbourhood) takes away."""
    return F.relu(mask - _largest(_eroded(mask), [3] * (mask.ndim - 2)))


def _eroded(mask: torch.Tensor) -> torch.Tensor:
    """The smallest value among each voxel and its neighbours along the axes."""
    n = mask.ndim - 2
    return reduce(torch.minimum, [-_largest(-mask, [3 if j == i else 1 for j in range(n)]) for i in range(n)])


def _largest(x: torch.Tensor, window: list[int]) -> torch.Tensor:
    """The largest value in the window around each voxel; the window ends with the patch."""
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    return pool(x, window, stride=1, padding=[side // 2 for side in window])
