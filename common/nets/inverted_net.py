"""InvertedNet and its two siblings, All-Dropout and All-Convolutional: U-Nets for chest radiographs.

Source: Novikov et al. 2018. All three have padded convolutions with bias, ELU, dropout after every convolution, and
nearest-neighbour up-sampling without weights, whose result keeps its channels and is concatenated with the skip:

    all_dropout   channels double at each level, 64 to 1024; max-pooling
    all_conv      the same, but each pooling is a 3-wide convolution with stride 2
    inverted      channels halve at each level, 256 to 16; max-pooling, sub-sampling delayed

InvertedNet with one channel and three outputs has 3,140,771 parameters (about 3.1 million in the paper). Delayed means
here that the first pooling moves on by one voxel, so that the second level keeps the resolution of the first. Which
pooling the paper delays, and its dropout rate, could not be looked up; neither has parameters.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from common.cards import NetCard, described
from common.nets.layers import CONV, POOL, Norm, he_normal, make_norm
from common.nets.u_shape import UShape

Variant = Literal["inverted", "all_dropout", "all_conv"]
LEVELS = 5
NARROWEST: dict[Variant, int] = {"inverted": 16, "all_dropout": 64, "all_conv": 64}


@described(
    NetCard(
        title="InvertedNet (and All-Dropout, All-Convolutional)",
        source="Novikov et al. 2018, IEEE TMI, doi:10.1109/TMI.2018.2806086, arXiv 1701.08816",
        suited="Rigid organs in radiographs with few training images; wide at full resolution, hence slow.",
        federation="No buffers unless `norm: batch`; an update of 13 MB at the default width.",
        receptive_field=106,
        small={"width": 2},
    )
)
def inverted_net(
    dimensions: int,
    channels: int,
    classes: int,
    *,
    variant: Variant = "inverted",
    width: Annotated[int, Field(ge=2, le=128)] | None = None,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    norm: Norm = "none",
) -> UShape:
    """Build the net: 5 levels.

    Args:
        dimensions: 2 (as published) or 3.
        channels: Image channels.
        classes: Labels and background.
        variant: `inverted`, `all_dropout` or `all_conv`: see the module's head.
        width: Channels of the narrowest level; the widest has 16 times as many. None: the paper's, 16 for `inverted`
            and 64 for the others.
        dropout: Chance of each number after a convolution to be set to 0 in training.
        norm: Normalisation between convolution and ELU (none in the paper).
    """
    inverted = variant == "inverted"
    narrowest = NARROWEST[variant] if width is None else width
    widths = [narrowest * 2**level for level in range(LEVELS)]
    if inverted:
        widths.reverse()
    *skips, bottom = widths
    deeper = [*skips[1:], bottom]
    # Of each step from a level to the next: whether it halves the resolution.
    halves = [step > 0 or not inverted for step in range(len(skips))]

    def unit(before: int, after: int, stride: int = 1) -> list[nn.Module]:
        conv = CONV[dimensions](before, after, 3, stride=stride, padding=1)
        return [conv, make_norm(norm, dimensions, after), nn.ELU(inplace=True), nn.Dropout(dropout)]

    def double(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(*unit(before, after), *unit(after, after))

    def shrink(maps: int, halve: bool) -> nn.Module:
        if variant == "all_conv":
            return nn.Sequential(*unit(maps, maps, stride=2))
        return POOL[dimensions](2) if halve else POOL[dimensions](3, stride=1, padding=1)

    net = UShape(
        down=[double(i, w) for i, w in zip([channels, *skips], widths, strict=True)],
        shrink=[shrink(w, halve) for w, halve in zip(skips, halves, strict=True)],
        grow=[nn.Upsample(scale_factor=2) if halve else nn.Identity() for halve in reversed(halves)],
        up=[double(w + below, w) for w, below in reversed(list(zip(skips, deeper, strict=True)))],
        head=CONV[dimensions](skips[0], classes, 1),
        divisor=(2 ** sum(halves),) * dimensions,
        norm=norm,
    )
    net.apply(he_normal)
    return net
