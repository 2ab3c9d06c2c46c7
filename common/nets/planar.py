"""2.5D: a 2D net for volumes, slice by slice in one, two or three directions, whose votes are fused.

Sources: Zhou X. et al. 2016 train one 2D net, use it on the slices along all three axes of a CT and let each voxel take
the class with most votes; so does this net. Zhou Y. et al. 2017 train a net for each plane, on three neighbouring
slices as channels (`stack: 3`); here the planes share their weights, so that an update stays as small as the 2D net's.

To the net all planes look alike, so voxels should be near to cubes if there is more than one plane. Zhou X. et al. do
not say how a tie is decided; here the mean of the probabilities decides it. The receptive field of the card is that of
U-Net, the net by default, in every plane.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import nn
from torch.nn import functional as F

from common.cards import NetCard, card_of, described
from common.documents import wrong_at
from common.losses.deep_supervision import head_weights
from common.names import NETS
from common.nets.shapes import need_3d
from common.section import Choice

Plane = Literal["axial", "coronal", "sagittal"]
Vote = Literal["mean", "majority"]
Make = Callable[[], nn.Module]
# The axis along which a plane's slices follow each other; volumes have RAS+ axes.
_ACROSS: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
# Side of the picture on which the outputs of the 2D net are counted; a few more where that does not fit.
_PROBE = 64


def _known_net_for_pictures(choice: Choice) -> Choice:
    """The choice with the defaults of its options, as the study's own net."""
    card = card_of(NETS.get(choice.name))
    if isinstance(card, NetCard) and 2 not in card.dimensions:
        raise wrong_at("name", f"net {choice.name} exists only in 3D; planar needs one that takes 2D pictures")
    return choice.model_copy(update={"options": NETS.check(choice.name, choice.options)})


def _each_once(planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
    """The planes in one order, so that equal studies have equal digests."""
    if not planes:
        raise ValueError("name at least one plane")
    if len(set(planes)) < len(planes):
        raise ValueError(f"each plane may stand once: {', '.join(planes)}")
    return tuple(plane for plane in _ACROSS if plane in planes)


PictureNet = Annotated[Choice, AfterValidator(_known_net_for_pictures), Field(validate_default=True)]
Planes = Annotated[tuple[Plane, ...], AfterValidator(_each_once)]


@described(
    NetCard(
        title="Planar (2.5D)",
        source="Zhou X. et al. 2016, DLMIA, doi:10.1007/978-3-319-46976-8_12; Zhou Y. et al. 2017, MICCAI, "
        "arXiv 1612.08230",
        suited="Volumes on small GPUs; thick slices (one plane); few cases.",
        federation="As the 2D net within, which all planes share: three planes make no larger update than one.",
        receptive_field=204,
        dimensions=(3,),
        small={"net": {"name": "unet", "width": 8, "levels": 3}},
    )
)
class Planar(nn.Module):
    """A 2D net on the slices of a volume.

    In training each plane's logits are an output of its own, and all planes weigh the same (if the 2D net is deeply
    supervised, each plane's weight is shared out among its outputs). In evaluation the planes are fused.

    Args:
        dimensions: 3.
        channels: Image channels.
        classes: Labels and background.
        net: The 2D net: its name, or name and options, e.g. `{name: unet, width: 32}`.
        stack: Neighbouring slices that the net sees as channels, the one it outlines in the middle; beyond the ends
            of the volume its last slice is repeated.
        planes: In which planes slices are taken.
        vote: `mean` of the planes' probabilities; or `majority`, the share of the planes that vote for a class, in
            which the mean counts as one vote more: it decides ties.

    Raises:
        StudyError: The images are not 3D.
    """

    def __init__(
        self,
        dimensions: int,
        channels: int,
        classes: int,
        *,
        net: PictureNet = Choice(name="unet"),  # noqa: B008 -- frozen
        stack: Literal[1, 3, 5] = 1,
        planes: Planes = ("axial", "coronal", "sagittal"),
        vote: Vote = "mean",
    ) -> None:
        super().__init__()
        need_3d(dimensions, "planar")
        choice = Choice.model_validate(net)

        def make() -> nn.Module:
            made: nn.Module = NETS.get(choice.name)(2, channels * stack, classes, **choice.options)
            return made

        self.net = make()
        self.stack, self.planes, self.vote = stack, planes, vote
        self.divisor = _divisor(self.net, planes)
        shares = _shares(make, channels * stack)
        self.head_weights = tuple(share / len(planes) for _ in planes for share in shares)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """In training logits `(B, K, *S)` of each plane; in evaluation one map, the log of the fused probability."""
        if self.training:
            return [logits for plane in self.planes for logits in self.outputs(x, plane)]
        return fuse([self.outputs(x, plane)[0].log_softmax(dim=1) for plane in self.planes], self.vote)

    def outputs(self, x: torch.Tensor, plane: Plane) -> list[torch.Tensor]:
        """What the 2D net gives for the slices of `plane`, put together to volumes, its main output first."""
        axis = _ACROSS[plane] + 2
        slices = stacked(x, axis, self.stack).movedim(axis, 1)
        found = self.net(slices.flatten(0, 1))
        outputs = found if isinstance(found, list) else [found]
        return [o.unflatten(0, slices.shape[:2]).movedim(1, axis) for o in outputs]


def stacked(x: torch.Tensor, axis: int, number: int) -> torch.Tensor:
    """`x` `(B, C, *S)` with each slice's neighbours along `axis` as channels, `(B, number * C, *S)`, lowest first."""
    if number == 1:
        return x
    here = torch.arange(x.shape[axis], device=x.device)
    offsets = range(-(number // 2), number // 2 + 1)
    return torch.cat([x.index_select(axis, (here + o).clamp(0, x.shape[axis] - 1)) for o in offsets], dim=1)


def fuse(planes: Sequence[torch.Tensor], vote: Vote) -> torch.Tensor:
    """The log of the planes' fused probability, from the log of each plane's, all `(B, K, *S)`."""
    each = torch.stack(list(planes))
    mean = each.logsumexp(dim=0) - math.log(len(planes))
    if vote == "mean":
        return mean
    votes = F.one_hot(each.argmax(dim=2), each.shape[2]).sum(dim=0).movedim(-1, 1).to(mean.dtype)
    return torch.logaddexp(votes.log(), mean) - math.log(len(planes) + 1)


def _divisor(net: nn.Module, planes: Sequence[Plane]) -> tuple[int, ...]:
    """Of what each side of the volume must be a multiple: of what the planes that it lies in need."""
    needed = [1, 1, 1]
    for plane in planes:
        within = [axis for axis in range(3) if axis != _ACROSS[plane]]
        for axis, step in zip(within, net.divisor, strict=True):  # type: ignore[arg-type]
            needed[axis] = math.lcm(needed[axis], int(step))
    return tuple(needed)


def _shares(make: Make, channels: int) -> Sequence[float]:
    """What each output of the 2D net weighs in training, as its paper says or else as in nnU-Net."""
    with torch.device("meta"):
        net = make().train()
        stated: Sequence[float] | None = getattr(net, "head_weights", None)
        if stated is not None:
            return stated
        sides = [step * max(2, -(-_PROBE // step)) for step in net.divisor]  # type: ignore[union-attr]
        found = net(torch.empty(2, channels, *sides))
    return head_weights(len(found)) if isinstance(found, list) else [1.0]
