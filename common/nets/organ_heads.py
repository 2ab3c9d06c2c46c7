"""One shared encoder and one decoder or head per organ.

Source of the idea: Keshwani et al. 2018, whose 3D net for polycystic kidneys learns several tasks on one encoder. No
code of theirs was found; here encoder and decoders are those of the U-Net (`unet.py`), so that with one organ the net
is a U-Net of one logit.

Each organ's decoder gives one logit per voxel. The background's logit is 0, so that the softmax over background and
organs is that of K classes; an organ's own probability against the background is the sigmoid of its logit.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import POOL, Norm
from common.nets.shapes import check_input
from common.nets.unet import UNet


@described(
    NetCard(
        title="Shared encoder with a head per organ",
        source="Keshwani et al. 2018, MICCAI workshop MLMI, arXiv 1809.02268",
        suited="Several organs of different size and look, of which not every site has labelled all.",
        federation="22 MB in fp32 for one organ in 3D, and 8 MB more for each further one; no buffers unless "
        "`norm: batch`. Where a site has not labelled an organ, that organ's decoder learns to call it background.",
        receptive_field=100,
        small={"width": 8, "levels": 3},
    )
)
class OrganHeads(nn.Module):
    """U-Net's encoder with one decoder, or only one last convolution, per organ.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Organs and background.
        decoders: `each` organ has its own decoder, as in the paper; `shared` means one decoder, after which each organ
            has only its own 1-wide convolution.
        width: Maps of the first level, doubled at each further one.
        levels: Resolutions.
        norm: Normalisation between convolution and ReLU.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        decoders: Literal["each", "shared"] = "each",
        width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 32,
        levels: Annotated[int, Field(ge=2, le=8)] = 4,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        organs = classes - 1
        heads = [1] * organs if decoders == "each" else [organs]
        whole = [UNet(dimensions, channels, n, width=width, levels=levels, norm=norm) for n in heads]
        self.down = whole[0].down
        self.up = nn.ModuleList(net.up for net in whole)
        self.heads = nn.ModuleList(net.head for net in whole)
        self.pool = POOL[dimensions](2)
        self.divisor = whole[0].divisor
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)`, those of the background 0.

        Raises:
            ValueError: The lowest level would have no voxel, or one to normalise.
        """
        check_input(x.shape[2:], self.divisor, multiple=False, more_than_one=self.norm != "none")
        levels = [self.down[0](x)]
        for block in self.down[1:]:
            levels.append(block(self.pool(levels[-1])))
        organs = [head(_decode(up, levels)) for up, head in zip(self.up, self.heads, strict=True)]
        return torch.cat((torch.zeros_like(organs[0][:, :1]), *organs), dim=1)


def _decode(up: nn.Module, levels: list[torch.Tensor]) -> torch.Tensor:
    *skips, x = levels
    for block, skip in zip(up.children(), reversed(skips), strict=True):
        x = block(x, skip)
    return x
