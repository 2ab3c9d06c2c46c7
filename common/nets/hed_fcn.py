"""FCN with HED's side outputs: each stage of VGG-16 gives a segmentation, and a last layer weighs them.

Sources: López-Linares et al. 2018, who segment thrombi with a net built on FCN and HED; Xie & Tu 2015 (HED, arXiv
1504.06375) for the layers. Five stages of VGG-16 without its last pooling; a 1-wide convolution scores each stage; the
scores are interpolated linearly to full size (HED's fixed transposed convolutions) and fused by a 1-wide convolution
that begins as their mean. In training the fused output and the five side outputs are all supervised at full size with
weight 1, as HED states. With 3 channels and 1 class 14,716,171 parameters.

The text of López-Linares et al. was not at hand: where their net differs from HED's layers with one score per class
instead of one edge score, this one does not follow it.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, Norm, he_normal
from common.nets.shapes import check_input
from common.nets.vgg import enlarge, vgg_stages, vgg_widths


@described(
    NetCard(
        title="FCN with HED side outputs",
        source="López-Linares et al. 2018, Medical Image Analysis, doi:10.1016/j.media.2018.03.010, arXiv 1804.00304",
        suited="One structure within a region of interest whose border shows at several scales.",
        federation="No buffers unless `norm: batch`; the side outputs' layers belong to the net and cross with it, an "
        "update of 59 MB at the default width in 2D.",
        receptive_field=212,
        small={"width": 6},
    )
)
class HEDFCN(nn.Module):
    """VGG-16 with supervised side outputs and their fusion.

    Args:
        dimensions: 2 as published, or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first stage (64 in the paper, giving up to 512).
        norm: Normalisation between convolution and ReLU (the paper has none).
    """

    head_weights = (1.0,) * 6

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        width: Annotated[int, Field(ge=1, le=64)] = 64,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.stages = vgg_stages(dimensions, channels, width=width, norm=norm)
        self.pool = POOL[dimensions](2, ceil_mode=True)
        self.sides = nn.ModuleList(CONV[dimensions](w, classes, 1) for w in vgg_widths(width))
        self.apply(he_normal)
        self.fuse = CONV[dimensions](len(self.sides) * classes, classes, 1)
        with torch.no_grad():
            self.fuse.weight.zero_()
            nn.init.zeros_(self.fuse.bias)  # type: ignore[arg-type]
            for label in range(classes):
                self.fuse.weight[label, label::classes] = 1 / len(self.sides)
        self.divisor = (1,) * dimensions
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training a list, the fused ones first, then those of the stages, all of full size.

        Raises:
            ValueError: The lowest level would have a single voxel to normalise.
        """
        size = x.shape[2:]
        if self.norm != "none":
            check_input(size, (16,) * len(size), multiple=False)
        outputs = []
        for level, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            x = stage(self.pool(x) if level else x)
            outputs.append(enlarge(side(x), 2**level, size))
        fused: torch.Tensor = self.fuse(torch.cat(outputs, dim=1))
        return [fused, *outputs] if self.training else fused
