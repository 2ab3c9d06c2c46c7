"""3D DSN: a plain 3D encoder and transposed convolutions, supervised at three depths.

Source: Dou et al. 2016; the released later form (github.com/yulequan/HeartSeg, 3D-DSN) decides the details:

    encoder  3³ convolution, norm, ReLU: 32 | 64, 64 | 128, 128 | 256, 256 maps, max-pooling by 2 between the groups
    way up   three transposed convolutions of width 4 and stride 2 to 128, 64 and 32 maps, without ReLU; 1³ score
    aux 1    after the second group: one transposed convolution to 32 maps; 1³ score; loss weight 1
    aux 2    after the third group: two transposed convolutions to 64 and 32 maps; 1³ score; loss weight 2

The main output has loss weight 5. All convolutions have biases, also those before a norm, but not the transposed
convolutions of the auxiliary outputs. With one channel and three classes that makes 7,026,761 parameters, of which
786,630 are the auxiliary outputs'. The paper's own net has larger kernels and fewer maps, and refines its result by a
conditional random field, which is a step of post-processing here.
"""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import Norm, he_normal, make_norm
from common.nets.shapes import check_input, need_3d


@described(
    NetCard(
        title="3D DSN (deeply supervised network)",
        source="Dou et al. 2016, MICCAI, arXiv 1607.00582",
        suited="Large organs in CT, such as the liver; converges fast.",
        federation="28 MB in fp32, of which 3 MB are the auxiliary outputs that only training needs; batch "
        "normalisation's statistics cross as rounds.buffers says.",
        receptive_field=82,
        dimensions=(3,),
        small={"width": 8},
    )
)
class DSN3D(nn.Module):
    """3D DSN of Dou et al. 2016 in its released form.

    Args:
        dimensions: 3.
        channels: Image channels.
        classes: Labels and background.
        width: Maps of the first group, doubled at each further one (32 in the release).
        norm: Normalisation between convolution and ReLU (the release has `batch`); all have a learnt scale and shift.
        deep_supervision: Also supervise the second and third group, as the paper does.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=2, le=256)] = 32,
        norm: Norm = "batch",
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        need_3d(dimensions, "3D DSN")
        one, two, four, eight = (width * n for n in (1, 2, 4, 8))
        groups = ((channels, one), (one, two, two), (two, four, four), (four, eight, eight))
        self.groups = nn.ModuleList(_group(widths, norm) for widths in groups)
        self.pool = nn.MaxPool3d(2)
        self.main = _score((eight, four, two, one), classes, bias=True)
        auxiliary = ((two, one), (four, two, one)) if deep_supervision else ()
        self.auxiliary = nn.ModuleList(_score(widths, classes, bias=False) for widths in auxiliary)
        if deep_supervision:
            self.head_weights = (5.0, 1.0, 2.0)
        self.divisor = (8, 8, 8)
        self.norm = norm
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training with deep supervision also two auxiliary ones, at the same resolution.

        Raises:
            ValueError: A side is no multiple of 8, or the lowest level would have a single voxel to normalise.
        """
        check_input(x.shape[2:], self.divisor, more_than_one=self.norm != "none")
        features = [self.groups[0](x)]
        for group in self.groups[1:]:
            features.append(group(self.pool(features[-1])))
        logits: torch.Tensor = self.main(features[-1])
        if self.training and self.auxiliary:
            return [logits, *(head(f) for head, f in zip(self.auxiliary, features[1:3], strict=True))]
        return logits


def _group(widths: tuple[int, ...], norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv3d(before, after, 3, padding=1), make_norm(norm, 3, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _score(widths: tuple[int, ...], classes: int, *, bias: bool) -> nn.Sequential:
    """Doubles the resolution at each step of `widths`, then scores the classes."""
    ups = (nn.ConvTranspose3d(before, after, 4, 2, 1, bias=bias) for before, after in pairwise(widths))
    return nn.Sequential(*ups, nn.Conv3d(widths[-1], classes, 1))
