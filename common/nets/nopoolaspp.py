"""NoPoolASPP: dilated convolutions at full resolution, six branches of different reach, no pooling.

Source: Perone et al. 2018 and its released network. Two 3-wide convolutions, two with dilation 2, then side by side: a
3-wide and a 1-wide convolution; two 3-wide ones with dilation 6, 12, 18 and 24 each; the image's mean of each channel.
Their 192 channels are normalised, mapped to 64 and classified. Each convolution has a bias, then ReLU, then batch
normalisation, then dropout. With 1 channel and 1 output 124,769 parameters, and 1,408 of batch normalisation.

The released Keras and PyTorch networks take the mean at different points; here, as in the latter, it is taken where
the other branches begin.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, Norm, he_normal, make_norm

_RATES = (6, 12, 18, 24)


@described(
    NetCard(
        title="NoPoolASPP",
        source="Perone et al. 2018, Scientific Reports, doi:10.1038/s41598-018-24304-3, arXiv 1710.01269",
        suited="Small structures in 2D slices, e.g. the spinal cord's grey matter; a tiny update.",
        federation="Batch normalisation's running statistics cross as rounds.buffers says (none with another `norm`); "
        "an update of 0.5 MB at the default width.",
        receptive_field=None,
        small={"width": 8},
    )
)
class NoPoolASPP(nn.Module):
    """Perone's net for the spinal cord's grey matter; one branch looks at the whole patch.

    Args:
        dimensions: 2 as published, or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of each convolution (32 in the paper).
        norm: Normalisation after each ReLU. With `instance` the branch of the mean carries nothing: a map of one
            value is normalised to 0.
        dropout: Share of features that are set to 0 in training.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=256)] = 32,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4,
    ) -> None:
        super().__init__()

        def unit(before: int, after: int, kernel: int, rate: int = 1) -> nn.Sequential:
            return nn.Sequential(
                CONV[dimensions](before, after, kernel, padding=rate * (kernel // 2), dilation=rate),
                nn.ReLU(inplace=True),
                make_norm(norm, dimensions, after),
                nn.Dropout(dropout),
            )

        self.stem = nn.Sequential(
            unit(channels, width, 3), unit(width, width, 3), unit(width, width, 3, 2), unit(width, width, 3, 2)
        )
        self.branches = nn.ModuleList([nn.Sequential(unit(width, width, 3), unit(width, width, 1))])
        self.branches.extend(nn.Sequential(unit(width, width, 3, r), unit(width, width, 3, r)) for r in _RATES)
        joined = (len(self.branches) + 1) * width
        self.join = nn.Sequential(make_norm(norm, dimensions, joined), nn.Dropout(dropout))
        self.head = nn.Sequential(unit(joined, 2 * width, 1), CONV[dimensions](2 * width, classes, 1))
        self.divisor = (1,) * dimensions
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`."""
        x = self.stem(x)
        whole = x.mean(dim=tuple(range(2, x.ndim)), keepdim=True).expand_as(x)
        joined = torch.cat([*(branch(x) for branch in self.branches), whole], dim=1)
        logits: torch.Tensor = self.head(self.join(joined))
        return logits
