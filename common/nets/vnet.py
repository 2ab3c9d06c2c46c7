"""V-Net: residual stages of 5-wide convolutions, down and up by strided convolutions.

Source: Milletari et al. 2016. Each stage adds its input to the output of its convolutions; the first adds the image,
repeated to as many channels. All convolutions have biases, each activation is a PReLU with one slope per channel,
nothing is normalised. The paper and the code that its authors released are two nets, and a third one is in wide use
(`vnet_monai`). Convolutions per stage, and parameters for 1 channel and 2 classes:

    paper    1-2-3-3-3 down, 3-3-2-1 up, 1-wide output     65,171,858 and 3,456 slopes
    caffe    1-1-2-3-3 down, 3-2-1-1 up, 5-wide and then   61,979,512 and 3,170 slopes
             1-wide output with a PReLU between
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, UP, Norm, he_normal, make_norm
from common.nets.shapes import check_input

_DOWN = {"paper": (1, 2, 3, 3, 3), "caffe": (1, 1, 2, 3, 3)}
_UP = {"paper": (3, 3, 2, 1), "caffe": (3, 2, 1, 1)}


@described(
    NetCard(
        title="V-Net",
        source="Milletari et al. 2016, 3DV, arXiv 1606.04797",
        suited="Large single organs in 3D with Dice loss, e.g. the prostate; a wide view from the first level on.",
        federation="No buffers unless `norm: batch`; an update of 261 MB at the default width.",
        receptive_field=548,
        small={"width": 4, "levels": 3},
    )
)
class VNet(nn.Module):
    """V-Net as in the paper or as in its authors' code.

    Args:
        dimensions: 3 as published, or 2.
        channels: Image channels.
        classes: Labels and background.
        variant: `paper` or `caffe` (the released code); see the module's head.
        width: Channels of the first level, doubled at each further one (16 in the paper).
        levels: Resolutions (5 in the paper).
        norm: Normalisation after each convolution (the paper has none).
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        variant: Literal["paper", "caffe"] = "paper",
        width: Annotated[int, Field(ge=1, le=64)] = 16,
        levels: Annotated[int, Field(ge=2, le=5)] = 5,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.stages = nn.ModuleList(
            Stage(dimensions, w if level else channels, w, convolutions=n, norm=norm)
            for level, (w, n) in enumerate(zip(widths, _DOWN[variant], strict=False))
        )
        self.down = nn.ModuleList(_step(CONV[dimensions](w, 2 * w, 2, 2), 2 * w, dimensions, norm) for w in widths[:-1])
        self.up, self.up_stages = nn.ModuleList(), nn.ModuleList()
        before = widths[-1]
        for w, n in zip(reversed(widths[:-1]), _UP[variant][-(levels - 1) :], strict=True):
            self.up.append(_step(UP[dimensions](before, w, 2, 2), w, dimensions, norm))
            self.up_stages.append(Stage(dimensions, 2 * w, 2 * w, convolutions=n, norm=norm))
            before = 2 * w
        self.head = _head(dimensions, before, classes, variant)
        self.divisor = (2 ** (levels - 1),) * dimensions
        self.norm = norm
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError unless the sides are multiples of `divisor`."""
        check_input(x.shape[2:], self.divisor, more_than_one=self.norm != "none")
        *skips, x = self.encode(x)
        for up, stage, skip in zip(self.up, self.up_stages, reversed(skips), strict=True):
            x = stage(torch.cat((up(x), skip), dim=1))
        logits: torch.Tensor = self.head(x)
        return logits

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each stage of the way down gives, the full resolution first."""
        features = [self.stages[0](x)]
        for down, stage in zip(self.down, self.stages[1:], strict=True):
            features.append(stage(down(features[-1])))
        return features


class Stage(nn.Module):
    """Convolutions whose output is added to their input before the last activation.

    Args:
        dimensions: 2 or 3.
        before: Channels of the input, repeated for the sum where they are fewer than `width`.
        width: Channels of the output.
        convolutions: How many.
        norm: Normalisation after each.
    """

    def __init__(self, dimensions: int, before: int, width: int, *, convolutions: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convolutions):
            layers += [nn.PReLU(width)] if i else []
            layers.append(CONV[dimensions](width if i else before, width, 5, padding=2))
            layers.append(make_norm(norm, dimensions, width))
        self.convolutions = nn.Sequential(*layers)
        self.activation = nn.PReLU(width)
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, width, *S)`."""
        repeats = -(-self.width // x.shape[1])
        added = torch.cat([x] * repeats, dim=1)[:, : self.width] if x.shape[1] != self.width else x
        features: torch.Tensor = self.activation(self.convolutions(x) + added)
        return features


def _step(convolution: nn.Module, width: int, dimensions: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(convolution, make_norm(norm, dimensions, width), nn.PReLU(width))


def _head(dimensions: int, width: int, classes: int, variant: str) -> nn.Module:
    conv = CONV[dimensions]
    if variant == "paper":
        return conv(width, classes, 1)
    return nn.Sequential(conv(width, classes, 5, padding=2), nn.PReLU(classes), conv(classes, classes, 1))
