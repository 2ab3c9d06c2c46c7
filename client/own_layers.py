"""The layers of the net that each site keeps for itself, where the study or its strategy wants some."""

import torch
from torch import Tensor, nn

from client.corrections import Kept, under
from common.nets import build_net
from common.schema import left_at_sites
from common.seeds import derive
from common.study import Study
from common.traits import keeps_layers


def load_own_layers(net: nn.Module, study: Study, kept: Kept) -> None:
    """Put the site's own layers into `net`.

    Args:
        net: With the weights that came.
        study: Says which layers are meant.
        kept: What the site kept, as `own_layers` gave it. Where that lacks them every site starts with the same ones:
            those of the net with which the coordinator began.
    """
    names = left_at_sites(net, study) if keeps_layers(study) else frozenset()
    found = under("own.", kept)
    if not names <= found.keys():
        found = initial(study)
    state = net.state_dict()
    with torch.no_grad():
        for name in names:
            state[name].copy_(found[name])


def own_layers(net: nn.Module, study: Study) -> dict[str, Tensor]:
    """The site's own layers of `net`, as the site keeps them."""
    if not keeps_layers(study):
        return {}
    state = net.state_dict()
    return {f"own.{name}": state[name] for name in left_at_sites(net, study)}


def initial(study: Study) -> dict[str, Tensor]:
    """The net's tensors with which the coordinator begins a run."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive(study.seed, "weights"))
        return build_net(study).state_dict()
