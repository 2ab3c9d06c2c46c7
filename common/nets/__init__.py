"""Encoder-decoder nets by name.

A net is a callable `(dimensions, channels, classes, *, options...) -> nn.Module`. The module maps an image
`(B, C, *S)` to logits `(B, K, *S)`, K = labels + background. In training mode a deeply supervised net returns
a list of logits, the full resolution first, each further one on its own coarser grid. Its attribute `divisor`
says of what each side of the input must be a multiple; the sides together must be larger than it, so that the
lowest level has more than one voxel to normalise over. A net whose paper weighs its outputs gives the weights
as `head_weights`. To add one: write a file here, with its card (`common/cards.py`), and add a line to
`common/names.py`.
"""

from torch import nn

from common.errors import StudyError
from common.names import NETS
from common.study import Study


def build_net(study: Study) -> nn.Module:
    """The study's net with PyTorch's initial weights (seed torch before for reproducible ones)."""
    make = NETS.get(study.net.name)
    net: nn.Module = make(study.data.dimensions, len(study.data.channels), study.classes, **study.net.options)
    return net


def divisor(net: nn.Module) -> tuple[int, ...]:
    """Of what each side of the net's input must be a multiple, e.g. `(8, 8, 8)`."""
    return tuple(int(n) for n in net.divisor)  # type: ignore[union-attr]


def check_patch(study: Study, net: nn.Module) -> None:
    """Raise StudyError if the study's patch does not fit the net, naming the nearest patch that does."""
    patch, steps = study.plan.patch, divisor(net)
    near = [max(n, round(side / n) * n) for side, n in zip(patch, steps, strict=True)]
    if list(patch) != near:
        raise StudyError(
            f"plan.patch {list(patch)} does not fit net {study.net.name}, which needs multiples of "
            f"{list(steps)}; the nearest is {near}"
        )
    if patch == steps:
        raise StudyError(
            f"plan.patch {list(patch)} leaves a single voxel at the lowest level of net {study.net.name}; double a side"
        )
