"""nnU-Net's plain U-Net: MONAI's DynUNet with supervision at true resolution.

Source of the architecture: Isensee et al. 2021 (nnU-Net); MONAI 1.6 holds the blocks. Size `large` has the
stages, widths and number of supervised outputs that nnU-Net plans for one large GPU.
"""

import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
from monai.networks.nets.dynunet import DynUNet
from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.errors import StudyError
from common.nets.shapes import check_input

Step = Annotated[tuple[Annotated[int, Field(ge=1, le=2)], ...], Field(min_length=2, max_length=3)]
Steps = Annotated[tuple[Step, ...], Field(min_length=2, max_length=8)]


class _Size(NamedTuple):
    width: int
    widest: int
    stages: int


_SIZES = {
    ("small", 3): _Size(8, 64, 4),
    ("medium", 3): _Size(32, 256, 4),
    ("large", 3): _Size(32, 320, 6),
    ("small", 2): _Size(8, 128, 5),
    ("medium", 2): _Size(32, 256, 6),
    ("large", 2): _Size(32, 512, 8),
}
_NORMS = {"instance": ("INSTANCE", {"affine": True}), "batch": "BATCH", "group": ("GROUP", {"num_groups": 8})}


class SupervisedDynUNet(DynUNet):  # type: ignore[misc,unused-ignore]
    """DynUNet whose supervised outputs keep their own resolution.

    MONAI up-samples every output to full size and stacks them, which costs memory and time in each step; and
    it lists each block twice in the state, once in its recursive skip layers. Neither is wanted here;
    parameters, their initial values and the output are MONAI's.
    """

    divisor: tuple[int, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.skip_layers
        del self.heads

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits `(B, K, *S)`; in training with deep supervision a list, the full resolution first.

        Raises:
            ValueError: A side is no multiple of `divisor`, or the lowest level would have a single voxel.
        """
        check_input(x.shape[2:], self.divisor)
        skips = [self.input_block(x)]
        for down in self.downsamples:
            skips.append(down(skips[-1]))
        x = self.bottleneck(skips[-1])
        features = []
        for up, skip in zip(self.upsamples, reversed(skips), strict=True):
            x = up(x, skip)
            features.append(x)
        logits: torch.Tensor = self.output_block(x)
        if not (self.training and self.deep_supervision):
            return logits
        coarser = features[-2::-1]
        return [logits, *(head(f) for head, f in zip(self.deep_supervision_heads, coarser, strict=False))]


@described(
    NetCard(
        title="DynUNet (nnU-Net's plain U-Net)",
        source="Isensee et al. 2021, Nature Methods, doi:10.1038/s41592-020-01008-z",
        suited="The default: strong on nearly every organ and modality.",
        federation="No buffers unless `norm: batch`; the heads of deep supervision are part of the update.",
        receptive_field=319,
        small={"size": "small"},
    )
)
def dynunet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    size: Literal["small", "medium", "large"] = "medium",
    norm: Literal["instance", "batch", "group"] = "instance",
    deep_supervision: bool = True,
    strides: Steps | None = None,
) -> nn.Module:
    """Build the net.

    Args:
        dimensions: 2 or 3.
        channels: Image channels.
        classes: Labels and background.
        size: `small` trains on a CPU, `medium` on any GPU, `large` is nnU-Net's own (a GPU of 8 GB or more).
        norm: Normalisation after each convolution; all have a learnt scale and shift, only `batch` has
            buffers.
        deep_supervision: Also supervise all lower resolutions of the decoder but the lowest.
        strides: Step from each level to the next, per axis 1 or 2, e.g. `[[2, 2, 1], [2, 2, 2], [2, 2, 2]]`
            for volumes with thick slices. Their number sets the number of levels. An axis that is first left
            alone gets kernels of width 1 until the level before its first halving, as in nnU-Net.

    Raises:
        StudyError: A step of `strides` has not one number per axis.
    """
    width, widest, stages = _SIZES[size, dimensions]
    steps = tuple(strides) if strides is not None else ((2,) * dimensions,) * (stages - 1)
    if any(len(step) != dimensions for step in steps):
        raise StudyError(f"net.strides: each step needs {dimensions} numbers, one per axis: {list(steps)}")
    net = SupervisedDynUNet(
        dimensions,
        channels,
        classes,
        kernel_size=kernels(steps, dimensions),
        strides=[(1,) * dimensions, *steps],
        upsample_kernel_size=steps,
        filters=[min(width * 2**level, widest) for level in range(len(steps) + 1)],
        norm_name=_NORMS[norm],
        deep_supervision=deep_supervision and len(steps) > 1,
        deep_supr_num=max(1, len(steps) - 1),
    )
    net.divisor = tuple(math.prod(step[axis] for step in steps) for axis in range(dimensions))
    return net


def kernels(steps: tuple[tuple[int, ...], ...], dimensions: int) -> list[tuple[int, ...]]:
    """Kernel size of each level: 3, but 1 on an axis whose first halving comes later than the next step."""
    first = [next((i for i, step in enumerate(steps) if step[axis] == 2), 0) for axis in range(dimensions)]
    return [tuple(3 if level >= first[axis] else 1 for axis in range(dimensions)) for level in range(len(steps) + 1)]
