"""Borders are drawn where the image has them: a dense conditional random field over the net's probabilities."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from common.cards import Card, described
from common.nets.mean_field import mean_field
from common.postprocess.steps import ProbabilityStep

Weight = Annotated[float, Field(ge=0, le=1000)]
Width = Annotated[float, Field(gt=0, le=1000)]


@described(
    Card(
        title="Dense CRF",
        source="Krähenbühl & Koltun 2011, arXiv 1210.5644; within a window: Teichmann & Cipolla 2018, arXiv 1805.04777",
        suited="Structures with a visible border that the net blurs; no help where neighbours look alike.",
    )
)
class CRF(ProbabilityStep):
    """Voxels that are near and look alike pull each other towards one class, by mean field inference.

    Works on the plan's grid, on the image as the net sees it (so `contrast` counts in its units). The defaults are
    ours: the best ones depend on the structure and are chosen on validation patients. Time grows with the window's
    voxels, by default 343 in 3D and 49 in 2D.

    Args:
        appearance: Weight of the pull between voxels that are near and look alike.
        place: How near, as the standard deviation of a Gaussian in mm (in pixels for pictures without a physical size).
        contrast: How much alike, as one in the image's values after the plan's intensity rule.
        smoothness: Weight of the pull between voxels that are near, whatever they look like.
        width: How near these are, in mm.
        radius: Voxels further apart along any axis do not pull each other.
        iterations: Mean field updates.
    """

    def __init__(
        self,
        *,
        appearance: Weight = 4.0,
        place: Width = 3.0,
        contrast: Width = 0.5,
        smoothness: Weight = 1.0,
        width: Width = 1.0,
        radius: Annotated[int, Field(ge=1, le=16)] = 3,
        iterations: Annotated[int, Field(ge=1, le=50)] = 5,
    ) -> None:
        self.appearance, self.place, self.contrast = appearance, place, contrast
        self.smoothness, self.width = smoothness, width
        self.radius, self.iterations = radius, iterations

    def __call__(self, probabilities: Tensor, image: Tensor, spacing: Sequence[float]) -> Tensor:
        """The mean field's probabilities `(K, *S)`; see `ProbabilityStep`."""
        # A class that the net excludes gets a finite energy, so that the rest stays comparable.
        unary = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()[None]
        logits = mean_field(
            unary,
            image[None],
            iterations=self.iterations,
            radius=self.radius,
            smoothness=self.smoothness,
            appearance=self.appearance,
            sigma_smooth=self.width,
            sigma_space=self.place,
            sigma_image=self.contrast,
            spacing=spacing,
        )
        return torch.softmax(logits, dim=1)[0]
