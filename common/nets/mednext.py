"""MedNeXt: ConvNeXt's depthwise convolutions in a U-Net, large kernels at few parameters.

Source: Roy et al. 2023; MONAI 1.6 holds the blocks. MONAI's sizes B, M and L are not those of the paper's own code:
there a block that halves expands its channels as the level that it leads to, in MONAI as the level it comes from. Here
it is as in the paper's code, so every size has that code's parameters (S 5,553,839, B 10,529,231, M 17,551,887,
L 61,782,191 from 1 channel to 3 classes with kernel 3), less the one number there that does nothing. The names in the
state are MONAI's: published weights do not load as they are.

The normalisation is over each channel by itself, as instance normalisation; the block knows no other. The paper does
not say what its five outputs weigh; here they weigh as in nnU-Net, whose coarsest one has no weight.
"""

from typing import Annotated, Any, Literal, NamedTuple

import torch
from monai.networks.blocks.mednext_block import MedNeXtDownBlock
from monai.networks.nets.mednext import MedNeXt
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.shapes import check_input


class _Size(NamedTuple):
    """Per level down to the bottleneck: expansion of the channels inside a block, and number of blocks."""

    expansion: tuple[int, ...]
    blocks: tuple[int, ...]


_SIZES = {
    "S": _Size((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": _Size((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": _Size((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": _Size((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


class PaperMedNeXt(MedNeXt):
    """MONAI's MedNeXt with the paper's way down, and outputs only where they are supervised."""

    divisor: tuple[int, ...]

    def __init__(self, dimensions: int, width: int, expansion: tuple[int, ...], kernel: int, **options: Any) -> None:
        super().__init__(
            spatial_dims=dimensions,
            init_filters=width,
            encoder_expansion_ratio=expansion[:-1],
            bottleneck_expansion_ratio=expansion[-1],
            decoder_expansion_ratio=expansion[-2::-1],
            kernel_size=kernel,
            use_residual_connection=True,
            **options,
        )
        self.divisor = (2 ** len(self.down_blocks),) * dimensions
        for level, expand in enumerate(expansion[1:]):
            if expand != expansion[level]:
                self.down_blocks[level] = MedNeXtDownBlock(
                    width * 2**level,
                    width * 2 ** (level + 1),
                    expand,
                    kernel,
                    use_residual_connection=True,
                    dim=f"{dimensions}d",
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training with deep supervision a list, the full resolution first.

        Raises:
            ValueError: A side is no multiple of `divisor`, or the lowest level would have a single voxel.
        """
        check_input(x.shape[2:], self.divisor)
        x = self.stem(x)
        skips = []
        for level, down in zip(self.enc_stages, self.down_blocks, strict=True):
            skips.append(level(x))
            x = down(skips[-1])
        x = self.bottleneck(x)
        features = [x]
        for up, level in zip(self.up_blocks, self.dec_stages, strict=True):
            x = level(up(x) + skips.pop())
            features.append(x)
        logits: torch.Tensor = self.out_0(x)
        if not (self.training and self.do_ds):
            return logits
        coarser = [head(f) for head, f in zip(self.out_blocks, features, strict=False)]
        return [logits, *reversed(coarser)]


@described(
    NetCard(
        title="MedNeXt",
        source="Roy et al. 2023, MICCAI, arXiv 2303.09975",
        suited="Accuracy at a small update; slower per parameter than plain convolutions.",
        federation="No buffers; 22 MB (S) to 247 MB (L) per update, the heads of deep supervision among them.",
        receptive_field=235,
        small={"width": 8},
    )
)
def mednext(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    size: Literal["S", "B", "M", "L"] = "S",
    kernel: Literal[3, 5] = 3,
    width: Annotated[int, Field(ge=4, le=64)] = 32,
    deep_supervision: bool = True,
) -> nn.Module:
    """Build the net: 5 levels.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        size: The paper's sizes: blocks per level and how far they expand their channels.
        kernel: Width of the depthwise convolutions.
        width: Channels of the first level, doubled at each further one (32 in the paper).
        deep_supervision: Also supervise all lower resolutions, the lowest among them.
    """
    expansion, blocks = _SIZES[size]
    return PaperMedNeXt(
        dimensions,
        width,
        expansion,
        kernel,
        in_channels=channels,
        out_channels=classes,
        deep_supervision=deep_supervision,
        blocks_down=blocks[:-1],
        blocks_bottleneck=blocks[-1],
        blocks_up=blocks[-2::-1],
    )
