"""The part of a site's training that its replies could not say yet, where updates are coded."""

import torch
from torch import Tensor

from client.corrections import Kept
from common.uplink import Uplink
from common.wire import Flat

LEFT = "left"  # its name among what the site keeps


def send(uplink: Uplink, flat: Flat, base: Flat, kept: Kept) -> tuple[Flat, dict[str, Tensor]]:
    """The arrays of a reply, and what is to be staged with it.

    What is left unsaid is staged beside the reply: it goes on from there only if the reply is counted. Of a reply that
    is lost the coordinator has read nothing, and what earlier ones left stands as it was.

    Args:
        uplink: What a reply holds.
        flat: The weights after training.
        base: Those that came.
        kept: What the site kept after its last counted round.

    Raises:
        WireError: The change of the weights is not finite.
    """
    found = kept.get(LEFT)
    if found is not None and found.numel() != uplink.coded:
        found = None
    arrays, left = uplink.encode(flat, base, None if found is None else found.numpy())
    return arrays, {} if left is None else {LEFT: torch.from_numpy(left)}
