"""LungNet: ten dilated convolutions at full resolution, all of which the classifier sees.

Source: Anthimopoulos et al. 2018. 3-wide convolutions of 32 channels whose dilations are the Fibonacci numbers 1, 1, 2,
3, 5, 8, 13, 21, 34, 55; image and ten maps are concatenated, dropped out and classified by 1-wide convolutions of
128, 32 and K channels. Before each ReLU, and on the image itself, stands x + norm(x). All convolutions have biases.
With 1 channel and 6 classes 129,094 parameters, and 962 of the normalisation.

The published net normalises each batch by itself, also when it is applied; at its batch size of 1 that is `instance`.
Written from the paper's facts; no code of its authors (GPL) is used.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, Norm, he_normal, make_norm

_DILATIONS = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55)


@described(
    NetCard(
        title="LungNet",
        source="Anthimopoulos et al. 2018, IEEE JBHI, doi:10.1109/JBHI.2018.2818620, arXiv 1803.06167",
        suited="Textures in 2D slices, e.g. diseased lung tissue with few annotated pixels; a tiny update.",
        federation="No buffers unless `norm: batch`; an update of 0.5 MB at the default width.",
        receptive_field=287,
        small={"width": 8},
    )
)
class LungNet(nn.Module):
    """Anthimopoulos' net for lung tissue.

    Args:
        dimensions: 2 as published, or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of each dilated convolution (32 in the paper), the classifier's first layer has four times as
            many.
        norm: The normalisation that is added to its own input.
        dropout: Share of the concatenated features that are set to 0 in training.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=256)] = 32,
        norm: Norm = "instance",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()

        def unit(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
            return nn.Sequential(
                CONV[dimensions](before, after, kernel, padding=dilation * (kernel // 2), dilation=dilation),
                AddedNorm(dimensions, after, norm),
                nn.ReLU(inplace=True),
            )

        self.image = AddedNorm(dimensions, channels, norm)
        self.layers = nn.ModuleList(unit(width if i else channels, width, 3, d) for i, d in enumerate(_DILATIONS))
        self.dropout = nn.Dropout(dropout)
        joined = channels + len(_DILATIONS) * width
        self.classifier = nn.Sequential(
            unit(joined, 4 * width, 1), unit(4 * width, width, 1), CONV[dimensions](width, classes, 1)
        )
        self.divisor = (1,) * dimensions
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`."""
        features = [self.image(x)]
        for layer in self.layers:
            features.append(layer(features[-1]))
        logits: torch.Tensor = self.classifier(self.dropout(torch.cat(features, dim=1)))
        return logits


class AddedNorm(nn.Module):
    """x + norm(x), or x alone where there is no normalisation."""

    def __init__(self, dimensions: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = make_norm(norm, dimensions, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the input's shape."""
        return x if isinstance(self.norm, nn.Identity) else x + self.norm(x)
