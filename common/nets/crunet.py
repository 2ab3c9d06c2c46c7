"""CRU-Net: a residual U-Net whose logits pass through a conditional random field, trained together.

Source: Li H. et al. 2018, with the layer of Zheng et al. 2015 (CRF as RNN). The layer learns a weight per class for
each of its two Gaussians and the cost of each pair of labels; the Gaussians' widths are options. Neighbours beyond a
window are left out (`common/nets/mean_field.py`): 11 voxels wide in 2D, as in Teichmann and Cipolla 2018. Zheng et al.
start from a trained net with weights of 3 and 5; here net and layer start together, so both weights start at 0.5: a
field that ties neighbours by more than 2 lets the whole image fall to one label before the net has learnt anything.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import Norm
from common.nets.mean_field import mean_field
from common.nets.residual_unet import residual_unet

INITIAL_WEIGHT = 0.5
Sigma = Annotated[float, Field(gt=0, le=1000)]


class CRFLayer(nn.Module):
    """Mean-field inference whose weights are learnt.

    Args:
        classes: Labels and background.
        iterations: Rounds of messages.
        radius: Neighbours per axis and direction.
        sigma_smooth: See `mean_field`.
        sigma_space: See `mean_field`.
        sigma_image: See `mean_field`.
    """

    def __init__(
        self, classes: int, *, iterations: int, radius: int, sigma_smooth: float, sigma_space: float, sigma_image: float
    ) -> None:
        super().__init__()
        self.iterations, self.radius = iterations, radius
        self.sigma_smooth, self.sigma_space, self.sigma_image = sigma_smooth, sigma_space, sigma_image
        self.smoothness = nn.Parameter(torch.full((classes,), INITIAL_WEIGHT))
        self.appearance = nn.Parameter(torch.full((classes,), INITIAL_WEIGHT))
        self.compatibility = nn.Parameter(1 - torch.eye(classes))

    def forward(self, logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` of the field with these unary logits over images `(B, C, *S)`."""
        return mean_field(
            logits,
            image,
            iterations=self.iterations,
            radius=self.radius,
            smoothness=self.smoothness,
            appearance=self.appearance,
            sigma_smooth=self.sigma_smooth,
            sigma_space=self.sigma_space,
            sigma_image=self.sigma_image,
            compatibility=self.compatibility,
        )


@described(
    NetCard(
        title="CRU-Net (conditional residual U-Net)",
        source="Li H. et al. 2018, MICCAI workshops, arXiv 1808.08885; Zheng et al. 2015, arXiv 1502.03240",
        suited="Masses whose border follows the intensities, on patches; slow and hungry for memory in 3D.",
        federation=(
            "No buffers unless `norm: batch`; the field's few weights are averaged like any other, an update of 130 MB "
            "in 2D at the default width."
        ),
        receptive_field=252,
        small={"width": 8, "levels": 3, "radius": 1, "iterations": 2},
    )
)
class CRUNet(nn.Module):
    """Residual U-Net and CRF layer.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        levels: Resolutions.
        norm: Normalisation after each 3-wide convolution.
        iterations: Rounds of messages between neighbours.
        radius: Neighbours per axis and direction: 5 are 120 in 2D and 1,330 in 3D, each a number per voxel to keep
            in training.
        sigma_smooth: Reach in voxels of the tie between any neighbours.
        sigma_space: Reach in voxels of the tie between neighbours that look alike.
        sigma_image: Difference of normalised intensity up to which they do.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 64,
        levels: Annotated[int, Field(ge=2, le=8)] = 5,
        norm: Norm = "instance",
        iterations: Annotated[int, Field(ge=1, le=20)] = 5,
        radius: Annotated[int, Field(ge=1, le=10)] = 5,
        sigma_smooth: Sigma = 3.0,
        sigma_space: Sigma = 5.0,
        sigma_image: Sigma = 0.5,
    ) -> None:
        super().__init__()
        self.net = residual_unet(dimensions, channels, classes, width=width, levels=levels, norm=norm)
        self.crf = CRFLayer(
            classes,
            iterations=iterations,
            radius=radius,
            sigma_smooth=sigma_smooth,
            sigma_space=sigma_space,
            sigma_image=sigma_image,
        )
        self.divisor = self.net.divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` after the last round of messages.

        Raises:
            ValueError: The lowest level would have no voxel, or a single one to normalise.
        """
        logits: torch.Tensor = self.crf(self.net(x), x)
        return logits
