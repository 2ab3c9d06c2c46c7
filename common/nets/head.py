"""Which layers of a net are its head: those that make the classes, with nothing learnt behind them."""

import json
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from common.nets import build_net
from common.section import AT_SITE
from common.study import Study


def head_of(study: Study) -> tuple[str, ...]:
    """Names of the parameters of the head of the study's net, in the net's order.

    The way back from each output ends at the first layer with a weight matrix or kernel; normalisation behind it is
    the head's, too. With deep supervision there are several heads. Found on a net without memory for its weights:
    nothing is computed.
    """
    return _head(study.canonical())


@lru_cache(maxsize=4)
def _head(canonical: bytes) -> tuple[str, ...]:
    study = Study.model_validate(json.loads(canonical), context=AT_SITE)
    with torch.random.fork_rng([]), torch.device("meta"):
        net = build_net(study).train()
        image = torch.empty(2, len(study.data.channels), *study.plan.patch)
        outputs = net(image)
    names = {id(p): name for name, p in net.named_parameters()}
    found = {names[id(p)] for output in _tensors(outputs) for p in _last_parameters(output)}
    return tuple(name for name in names.values() if name in found)


def head_modules(net: nn.Module, study: Study) -> tuple[nn.Module, ...]:
    """The modules of `net` that hold the head's parameters."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in head_of(study))
    return tuple(net.get_submodule(name) for name in names)


def _tensors(outputs: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Iterator[Tensor]:
    yield from (outputs,) if isinstance(outputs, Tensor) else outputs


def _last_parameters(output: Tensor) -> Iterator[nn.Parameter]:
    """Parameters of the operations nearest to `output`, back along every branch of autograd's graph."""
    open_nodes, seen = [output.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [n for n, _ in node.next_functions if n is not None]
        here = [n.variable for n in before if hasattr(n, "variable")]
        yield from here
        if not any(p.ndim > 1 for p in here):
            open_nodes += before
