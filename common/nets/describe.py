"""What a study's net costs, computed on PyTorch's meta device: shapes only, no memory, no arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from common.losses import build_loss
from common.nets import build_net

if TYPE_CHECKING:
    from common.study import Study

FP32_BYTES = 4


@dataclass(frozen=True)
class NetSize:
    """Size of a net.

    Attributes:
        parameters: Numbers that are learnt.
        buffers: Numbers that are kept beside them (running statistics).
    """

    parameters: int
    buffers: int

    @property
    def bytes_fp32(self) -> int:
        """Bytes of parameters and buffers in fp32."""
        return FP32_BYTES * (self.parameters + self.buffers)


def net_size(study: "Study") -> NetSize:
    """Parameters and buffers of the study's net."""
    with torch.device("meta"):
        return size_of(build_net(study))


def size_of(net: nn.Module) -> NetSize:
    """Parameters and buffers of a net that exists."""
    return NetSize(sum(p.numel() for p in net.parameters()), sum(b.numel() for b in net.buffers()))


def activation_memory(study: "Study") -> int:
    """Bytes that one training step keeps between its forward and its backward pass, in fp32.

    The net and the loss run once on the meta device with the study's batch and patch; what autograd saves is
    summed, each storage once, parameters left out. This is the part of the peak that grows with batch and patch.
    Weights, gradients and optimiser moments (about 4 × `bytes_fp32` with AdamW), the convolution library's work
    space and the caching of the allocator come on top; mixed precision needs about half.
    """
    with torch.device("meta"):
        net = build_net(study).train()
        loss = build_loss(study, net)
        batch, patch = study.training.batch, study.plan.patch
        image = torch.empty(batch, len(study.data.channels), *patch)
        target = torch.empty(batch, *patch, dtype=torch.int64)
    with torch.device("meta"):
        return saved_for_backward(net, lambda: loss(net(image), target))


def saved_for_backward(net: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that autograd saves during `forward`, each storage once, the parameters of `net` left out."""
    weights = {p.untyped_storage() for p in net.parameters()}
    saved: set[torch.UntypedStorage] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.add(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in saved - weights)
