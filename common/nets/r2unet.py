"""R2U-Net: U-Net of residual blocks whose convolutions are applied several times with the same weights.

Source: Alom et al. 2018. A block first brings its input to its width by a 1-wide convolution, then passes it through
two recurrent layers and adds the two. A recurrent layer has one 3-wide convolution with normalisation and ReLU; it
is applied to the input, and then `recurrences` times to the input plus its own last result. Up-sampling repeats each
voxel and is followed by a 3-wide convolution to half the channels. Every convolution has a bias; the normalisation's
scale and shift are shared by the repetitions too. These are the conventions of the widely used release at
github.com/LeeJunHyun/Image_Segmentation, which has 39,091,393 parameters for 3 channels and 1 class; the paper itself
reports smaller ones of about one million, which a smaller `width` gives.

With batch normalisation each repetition keeps running statistics of its own (Cooijmans et al. 2017, arXiv 1603.09025),
where the release has one set for all. In training that is the same; but the repetitions' features differ, and with
statistics that fit none of them a net that has learnt its training images finds nothing in them in evaluation.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, Norm, conv_unit
from common.nets.u_shape import UShape


class RepeatedBatchNorm(nn.Module):
    """Batch normalisation of a layer that is applied several times: one scale and shift, statistics of each time.

    Args:
        dimensions: 2 or 3.
        width: Channels.
        times: How often the layer is applied.
    """

    def __init__(self, dimensions: int, width: int, times: int) -> None:
        super().__init__()
        batch = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.times = nn.ModuleList(batch(width, affine=False) for _ in range(times))

    def forward(self, x: torch.Tensor, time: int) -> torch.Tensor:
        """`x` `(B, width, *S)` normalised as at the application number `time`, counted from 0."""
        own: Any = self.times[time]
        if own.training:
            own.num_batches_tracked.add_(1)
        mean, variance = own.running_mean, own.running_var
        return F.batch_norm(x, mean, variance, self.weight, self.bias, own.training, own.momentum, own.eps)


class RecurrentLayer(nn.Module):
    """One convolution with normalisation and ReLU, applied `1 + recurrences` times.

    Args:
        dimensions: 2 or 3.
        width: Channels of input and output.
        norm: Normalisation after the convolution.
        recurrences: How often the layer's own result is fed back.
    """

    def __init__(self, dimensions: int, width: int, *, norm: Norm, recurrences: int) -> None:
        super().__init__()
        self.unit = conv_unit(dimensions, width, width, norm=norm)
        if norm == "batch":
            self.unit[1] = RepeatedBatchNorm(dimensions, width, 1 + recurrences)
        self.recurrences = recurrences

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the same shape as `x`, `(B, width, *S)`."""
        state = self._once(x, 0)
        for time in range(self.recurrences):
            state = self._once(x + state, 1 + time)
        return state

    def _once(self, x: torch.Tensor, time: int) -> torch.Tensor:
        convolution, norm, activation = self.unit
        x = convolution(x)
        state: torch.Tensor = activation(norm(x, time) if isinstance(norm, RepeatedBatchNorm) else norm(x))
        return state


class RecurrentResidualBlock(nn.Module):
    """A 1-wide convolution, and two recurrent layers whose result is added to its own.

    Args:
        dimensions: 2 or 3.
        before: Channels of the input.
        after: Channels of the output.
        norm: Normalisation of the recurrent layers.
        recurrences: See `RecurrentLayer`.
    """

    def __init__(self, dimensions: int, before: int, after: int, *, norm: Norm, recurrences: int) -> None:
        super().__init__()
        self.widen = CONV[dimensions](before, after, 1)
        self.layers = nn.Sequential(
            *(RecurrentLayer(dimensions, after, norm=norm, recurrences=recurrences) for _ in range(2))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, after, *S)` of features `(B, before, *S)`."""
        x = self.widen(x)
        result: torch.Tensor = x + self.layers(x)
        return result


@described(
    NetCard(
        title="R2U-Net",
        source="Alom et al. 2018, arXiv 1802.06955; doi:10.1117/1.JMI.6.1.014006",
        suited="Thin and branching structures such as retinal vessels; more depth without more parameters.",
        federation=(
            "Running statistics at the default `norm: batch`, of each repetition of a layer, cross as rounds.buffers "
            "says; an update of 156 MB in 2D at the default width."
        ),
        receptive_field=612,
        small={"width": 8, "levels": 3},
    )
)
def r2unet(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 64,
    levels: Annotated[int, Field(ge=2, le=8)] = 5,
    recurrences: Annotated[int, Field(ge=0, le=8)] = 2,
    norm: Norm = "batch",
) -> UShape:
    """Build the net.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        width: Channels of the first level, doubled at each further one.
        levels: Resolutions.
        recurrences: How often each recurrent layer's result is fed back to it (t in the paper); time and memory grow
            with it, parameters do not.
        norm: Normalisation after each 3-wide convolution.
    """

    def block(before: int, after: int) -> RecurrentResidualBlock:
        return RecurrentResidualBlock(dimensions, before, after, norm=norm, recurrences=recurrences)

    widths = [width * 2**level for level in range(levels)]
    # Initial weights are PyTorch's: He's would let the repeated sums grow from block to block where nothing normalises.
    return UShape(
        down=[block(i, w) for i, w in zip([channels, *widths[:-1]], widths, strict=True)],
        shrink=[POOL[dimensions](2) for _ in widths[1:]],
        grow=[
            nn.Sequential(nn.Upsample(scale_factor=2), conv_unit(dimensions, 2 * w, w, norm=norm))
            for w in reversed(widths[:-1])
        ],
        up=[block(2 * w, w) for w in reversed(widths[:-1])],
        head=CONV[dimensions](width, classes, 1),
        divisor=(2 ** (levels - 1),) * dimensions,
        norm=norm,
    )
