"""Encoder-decoder nets by name.

A net is a callable `(dimensions, channels, classes, *, options...) -> nn.Module`. The module maps an image
`(B, C, *S)` to logits `(B, K, *S)`, K = labels + background. In training mode a deeply supervised net returns a list
of logits, the full resolution first. To add one: write a file here and add a line to the table.
"""

from typing import TYPE_CHECKING

from common.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from common.study import Study

NETS = Registry(
    "net",
    {
        "dynunet": "common.nets.dynunet:dynunet",
        "unet": "common.nets.unet:UNet",
        "segresnet": "common.nets.segresnet:segresnet",
    },
)


def build_net(study: "Study") -> "nn.Module":
    """The study's net with PyTorch's initial weights (seed torch before for reproducible ones)."""
    make = NETS.get(study.net.name)
    net: nn.Module = make(study.data.dimensions, len(study.data.channels), study.classes, **study.net.options)
    return net
