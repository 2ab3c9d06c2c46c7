"""Sums of losses."""

from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator
from torch import nn

from common.cards import Card, described
from common.losses.distribution import CELoss, ClassWeights, FocalLoss
from common.losses.overlap import DiceLoss, Smooth
from common.names import LOSSES

Weight = Annotated[float, Field(gt=0, le=1000)]


@described(
    Card(
        title="Dice and cross-entropy",
        source="Isensee et al. 2021 (nnU-Net), Nature Methods, doi:10.1038/s41592-020-01008-z",
        suited="The default: nearly everything.",
    )
)
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
        smooth: Smooth = 1e-5,
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


@described(
    Card(
        title="Dice and focal",
        source="Zhu et al. 2019 (AnatomyNet), Medical Physics, arXiv 1808.05238",
        suited="Several labels of which some are small and hard.",
    )
)
class DiceFocalLoss(nn.Module):
    """Dice loss plus focal loss.

    Args:
        dice: Weight of the Dice loss.
        focal: Weight of the focal loss.
        gamma: See FocalLoss.
        background: See DiceLoss.
        batch: See DiceLoss.
        smooth: See DiceLoss.
        class_weights: See FocalLoss.
    """

    def __init__(
        self,
        *,
        dice: Weight = 1.0,
        focal: Weight = 1.0,
        gamma: Annotated[float, Field(ge=0, le=10)] = 2.0,
        background: bool = False,
        batch: bool = True,
        smooth: Smooth = 1e-5,
        class_weights: ClassWeights | None = None,
    ) -> None:
        super().__init__()
        self.weights = (dice, focal)
        self.dice = DiceLoss(background=background, batch=batch, smooth=smooth)
        self.focal = FocalLoss(gamma=gamma, class_weights=class_weights)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`."""
        dice, focal = self.weights
        loss: torch.Tensor = dice * self.dice(logits, target) + focal * self.focal(logits, target)
        return loss


class Term(BaseModel):
    """A loss within a sum, written flat: `{name: dice, weight: 0.5, squared: true}` or just `dice`."""

    model_config = ConfigDict(frozen=True)
    name: str
    weight: Weight = 1.0
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict):
            own = {k: v for k, v in value.items() if k in ("name", "weight")}
            return {**own, "options": {k: v for k, v in value.items() if k not in own}}
        return value

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        return {"name": self.name, "weight": self.weight, **self.options}


def _known(term: Term) -> Term:
    """`term` with the defaults of its options filled in."""
    if term.name == "sum":
        raise ValueError("a sum within a sum; write its terms here, their weights multiplied")
    return term.model_copy(update={"options": LOSSES.check(term.name, term.options)})


Terms = Annotated[
    tuple[Annotated[Term, AfterValidator(_known)], ...], Field(min_length=1, max_length=8, validate_default=True)
]
DICE_AND_CE = (Term(name="dice"), Term(name="ce"))


@described(
    Card(
        title="Weighted sum",
        source="Kervadec et al. 2019, arXiv 1812.07032, for example: generalised Dice + 0.01 × boundary",
        suited="Terms that are weak alone: boundary, hausdorff, cldice, entropy.",
    )
)
class SumLoss(nn.Module):
    """A weighted sum of other losses.

    Args:
        terms: Each the name of a loss, its weight (1 if none is given) and its options; not another sum.
    """

    def __init__(self, *, terms: Terms = DICE_AND_CE) -> None:
        super().__init__()
        chosen = [Term.model_validate(term) for term in terms]
        self.weights = [term.weight for term in chosen]
        self.terms = nn.ModuleList(LOSSES.get(term.name)(**term.options) for term in chosen)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits `(B, K, *S)` against labels `(B, *S)`."""
        parts = [w * term(logits, target) for w, term in zip(self.weights, self.terms, strict=True)]
        return torch.stack(parts).sum()
