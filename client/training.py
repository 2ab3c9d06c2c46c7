"""The local training of one round: the whole of it, on this page."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import TrainingError
from common.study import Training
from common.wire import Terms


@dataclass(frozen=True)
class Span:
    """The steps of one round within the study: `first` … `first + count − 1` of `total`."""

    first: int
    count: int
    total: int


def make_optimizer(net: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The study's optimiser over all parameters of `net`."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        net.parameters(),
        lr=settings.rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )


def rate_at(settings: Training, step: int, total: int) -> float:
    """Learning rate of a step of the study (from 0); poly is nnU-Net's (1 − t)^0.9 (Isensee et al. 2021)."""
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    t = (step - settings.warmup) / max(1, total - settings.warmup)
    if settings.schedule == "cosine":
        return settings.rate * 0.5 * (1 + math.cos(math.pi * t))
    return settings.rate * math.pow(1 - t, 0.9 if settings.schedule == "poly" else 0)


def autocast(settings: Training, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision as the study wants it on `device`."""
    if settings.precision == "bf16" or (settings.precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


class Progress:
    """How far a round has come, in memory; `client.work.midround` keeps it on disk as well.

    Attributes:
        done: Steps of the round that are done.
        total: Sum of their losses.
        seconds: What processes before this one spent on the round.
    """

    def __init__(self) -> None:
        self.done, self.total, self.seconds = 0, 0.0, 0.0

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put net, optimiser and random numbers where the round stood; called once, before the first step."""

    def add(self, loss: float, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Count a step; called when it is whole."""
        self.done += 1
        self.total += loss


def train(
    net: nn.Module,
    loss_of: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    settings: Training,
    span: Span,
    terms: Terms,
    on_step: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> float:
    """Train `net` in place for one round and return the mean loss.

    Args:
        net: On its device, with the weights that the round starts from; receives images (B, C, *S).
        loss_of: Maps the net's output and labels (B, *S) to a scalar.
        optimizer: With the state it had at the end of the last round, or a fresh one.
        batches: `span.count` pairs, less those that are done, of images (B, C, *S) float32 and labels (B, *S) int64.
        settings: The study's training section.
        span: Which steps of the study these are; the schedule runs over the whole study.
        terms: What the strategy adds.
        on_step: Called after each step.
        progress: Where the round goes on; none begins it.

    Raises:
        TrainingError: The loss or the gradient became NaN or infinite; the weights are then of no use.
    """
    device = next(net.parameters()).device
    parameters = [p for p in net.parameters() if p.requires_grad]
    anchor = [p.detach().clone() for p in parameters] if terms.proximal else []
    progress = progress or Progress()
    progress.restore(net, optimizer)
    net.train()
    for step, (image, label) in enumerate(batches, start=span.first + progress.done):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(settings, step, span.total)
        with autocast(settings, device):
            output = net(_to(image, device))
        loss = loss_of(output, label.to(device, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if terms.proximal:
            _pull(parameters, anchor, terms.proximal)
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf)
        if not torch.isfinite(norm + loss.detach()):
            raise TrainingError(
                f"step {step + 1}: loss {loss.item():g}, gradient norm {norm.item():g}. Lower training.rate, set "
                "training.clip, or look for extreme intensities in the site's scans"
            )
        optimizer.step()
        progress.add(loss.item(), net, optimizer)
        on_step()
    return progress.total / max(1, span.count)


@torch.no_grad()
def _pull(parameters: list[nn.Parameter], anchor: list[Tensor], mu: float) -> None:
    """Add the gradient of μ/2‖w − w_global‖², which is μ(w − w_global); autograd is not needed for it."""
    for parameter, start in zip(parameters, anchor, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - start, alpha=mu)


def _to(image: Tensor, device: torch.device) -> Tensor:
    """On the device, channels last: convolutions of nets with few channels are about 1.5 times faster so."""
    layout = torch.channels_last_3d if image.ndim == 5 else torch.channels_last
    return image.to(device, non_blocking=True).contiguous(memory_format=layout)


def channels_last(net: nn.Module) -> nn.Module:
    """`net` with its convolution weights in channels-last layout, in place."""
    for parameter in net.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last_3d if parameter.ndim == 5 else torch.channels_last
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return net


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimiser's state as named tensors, parameter by parameter in the net's order."""
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                yield f"optimizer.{index}.{key}", value


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, moments in the memory layout of their parameters as they were."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, index, key = name.split(".", 2)
        if prefix == "optimizer":
            like = parameters[int(index)].detach()
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape and value.ndim else value
            state.setdefault(int(index), {})[key] = moment
    if state:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
