"""CMR-FCN: a strided encoder whose five scales are brought to full size and classified together.

Source: Bai et al. 2018 and its released network. 2-2-3-3-3 convolutions of 16 to 256 channels, the first of each
further scale with stride 2; each scale is mapped to 32 channels, interpolated to full size and concatenated; two 1-wide
convolutions of 64 channels and one for the classes follow. Convolutions have no bias, batch normalisation and ReLU;
the last one has a bias and neither. Interpolation is linear and not learnt. The paper counts no parameters; by this
reading there are 1,982,100 for 1 channel and 4 classes, and 3,456 of batch normalisation.

A coarse voxel lies where its strided convolutions are centred, on every 2nd, 4th, ... voxel beginning with the first.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, described
from common.nets.layers import CONV, Norm, he_normal, make_norm
from common.nets.shapes import check_input

_CONVOLUTIONS = (2, 2, 3, 3, 3)
_LINEAR = {2: "bilinear", 3: "trilinear"}


@described(
    NetCard(
        title="CMR-FCN",
        source="Bai et al. 2018, J Cardiovasc Magn Reson, doi:10.1186/s12968-018-0471-x, arXiv 1710.09289",
        suited="Heart chambers in cine MRI slices; light and fast.",
        federation="Batch normalisation's running statistics cross as rounds.buffers says (none with another `norm`); "
        "an update of 8 MB at the default width.",
        receptive_field=167,
        small={"width": 4},
    )
)
class CMRFCN(nn.Module):
    """Bai's net for short-axis and long-axis cine MRI.

    Args:
        dimensions: 2 as published, or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first scale, doubled at each further one (16 in the paper); each scale enters the
            classifier with twice as many, whose own layers have four times as many.
        norm: Normalisation between convolution and ReLU.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=128)] = 16,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()

        def unit(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                # Without a normalisation the convolution needs its bias.
                CONV[dimensions](before, after, kernel, stride, padding=kernel // 2, bias=norm == "none"),
                make_norm(norm, dimensions, after),
                nn.ReLU(inplace=True),
            )

        self.scales, self.same = nn.ModuleList(), nn.ModuleList()
        before = channels
        for level, convolutions in enumerate(_CONVOLUTIONS):
            after = width * 2**level
            first = unit(before, after, 3, 2 if level else 1)
            self.scales.append(nn.Sequential(first, *(unit(after, after, 3) for _ in range(convolutions - 1))))
            self.same.append(unit(after, 2 * width, 1))
            before = after
        self.classifier = nn.Sequential(
            unit(2 * width * len(_CONVOLUTIONS), 4 * width, 1),
            unit(4 * width, 4 * width, 1),
            CONV[dimensions](4 * width, classes, 1),
        )
        self.divisor = (1,) * dimensions
        self.norm = norm
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError if the lowest scale would have a single voxel to normalise."""
        size = x.shape[2:]
        if self.norm != "none":
            check_input(size, (16,) * len(size), multiple=False)
        maps = []
        for level, (scale, same) in enumerate(zip(self.scales, self.same, strict=True)):
            x = scale(x)
            maps.append(_spread(same(x), 2**level, size))
        logits: torch.Tensor = self.classifier(torch.cat(maps, dim=1))
        return logits


def _spread(x: torch.Tensor, step: int, size: torch.Size) -> torch.Tensor:
    """`x`, whose voxels lie on each `step`-th of `size`, interpolated; its last voxel is repeated to the end."""
    if step == 1:
        return x
    covered = [(n - 1) * step + 1 for n in x.shape[2:]]
    x = F.interpolate(x, covered, mode=_LINEAR[len(size)], align_corners=True)
    rest = [n - m for n, m in zip(size, covered, strict=True)]
    return F.pad(x, [p for n in reversed(rest) for p in (0, n)], mode="replicate")
