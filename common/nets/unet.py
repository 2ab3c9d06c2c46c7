"""The original U-Net and the 3D U-Net, in 2D or 3D.

Sources: Ronneberger et al. 2015, Çiçek et al. 2016. The flavours differ in three points:

    ronneberger   both convolutions of a level have its width;
                  the up-convolution halves the channels and has a bias
    cicek         the first convolution of a level has half its width, so that channels double before pooling;
                  the up-convolution keeps the channels and has no bias
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, UP, Norm, crop, he_normal, make_norm, mirror
from common.nets.shapes import check_input


@described(
    NetCard(
        title="U-Net and 3D U-Net",
        source="Ronneberger et al. 2015, MICCAI, arXiv 1505.04597; Çiçek et al. 2016, MICCAI, arXiv 1606.06650",
        suited="The reference for every other net; few images, sharp borders.",
        federation="With `norm: batch` its running statistics cross as rounds.buffers says; the others have none.",
        receptive_field=204,
        small={"width": 8, "levels": 3},
    )
)
class UNet(nn.Module):
    """U-Net of 3-wide convolutions with ReLU, max-pooling by 2 and concatenated skips.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        flavour: See the module's head.
        width: Channels of the first level, doubled at each further one (64 in both papers).
        levels: Resolutions (5 in the paper of 2015, 4 in that of 2016).
        norm: Normalisation between convolution and ReLU (the paper of 2015 has none, that of 2016 `batch`).
        padding: `same` pads each convolution with zeros. `valid` pads none: the image is mirrored at its
            border just far enough, as in the papers' overlap-tile scheme, which costs time and memory.

    With `same`, sides that are no multiple of `divisor` lose their last rows in pooling; the way up repeats
    its last row to fit the skip.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        flavour: Literal["ronneberger", "cicek"] = "ronneberger",
        width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 64,
        levels: Annotated[int, Field(ge=2, le=8)] = 5,
        norm: Norm = "instance",
        padding: Literal["same", "valid"] = "same",
    ) -> None:
        super().__init__()
        classic = flavour == "ronneberger"
        widths = [width * 2**level for level in range(levels)]
        block = partial(_double, dimensions, norm=norm, pad=padding == "same")
        inputs = [channels, *widths[:-1]]
        self.down = nn.ModuleList(block(i, w if classic else w // 2, w) for i, w in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(
            UpBlock(UP[dimensions](2 * w, w if classic else 2 * w, 2, 2, bias=classic), block, skip=w, width=w)
            for w in reversed(widths[:-1])
        )
        self.pool = POOL[dimensions](2)
        self.head = CONV[dimensions](width, classes, 1)
        self.levels, self.padding, self.norm = levels, padding, norm
        self.divisor = ((2 ** (levels - 1)) if padding == "same" else 1,) * dimensions
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`; ValueError if the lowest level would have no voxel, or one to normalise."""
        if self.padding == "same":
            check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
            return self.unpadded(x)
        size = x.shape[2:]
        outer = [self.valid_sizes(n) for n in size]
        for axis, (n, (before, _)) in enumerate(zip(size, outer, strict=True), start=2):
            x = mirror(x, axis, (before - n) // 2, before - n - (before - n) // 2)
        logits = self.unpadded(x)
        return crop(logits, size)

    def unpadded(self, x: torch.Tensor) -> torch.Tensor:
        """The bare net: with `valid` the output is smaller than the input (572 gives 388 at 5 levels)."""
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        logits: torch.Tensor = self.head(x)
        return logits

    def valid_sizes(self, side: int) -> tuple[int, int]:
        """The smallest (input, output) side of the bare `valid` net whose output covers `side`."""
        # Two convolutions take 4 off each level; going down that is halved at each step, going up doubled.
        halved = 2 ** (self.levels - 1)
        lost = 4 * (halved - 1)
        bottom = -(-(side + lost) // halved)
        return halved * (bottom + 4) + lost, halved * bottom - lost


class UpBlock(nn.Module):
    """One level of the way up: up-convolution, skip fitted and concatenated, two convolutions.

    Args:
        up: The up-convolution.
        block: Makes the two convolutions from (input, middle, output) channels.
        skip: Channels of the skip.
        width: Channels of the output.
    """

    def __init__(self, up: nn.Module, block: Callable[[int, int, int], nn.Module], *, skip: int, width: int) -> None:
        super().__init__()
        self.up = up
        self.block = block(skip + int(up.out_channels), width, width)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Features at the skip's resolution, or cropped where the convolutions are valid."""
        x = self.up(x)
        missing = [n - m for n, m in zip(skip.shape[2:], x.shape[2:], strict=True)]
        if any(missing) and max(missing) <= 1:
            x = F.pad(x, [p for n in reversed(missing) for p in (0, n)], mode="replicate")
        features: torch.Tensor = self.block(torch.cat((crop(skip, x.shape[2:]), x), dim=1))
        return features


def _double(dimensions: int, before: int, middle: int, after: int, *, norm: Norm, pad: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in ((before, middle), (middle, after)):
        layers += [
            CONV[dimensions](i, o, 3, padding=int(pad)),
            make_norm(norm, dimensions, o),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
