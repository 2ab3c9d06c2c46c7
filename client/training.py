"""The local training of one round: the whole of it, on this page."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import TrainingError
from common.freezing import frozen
from common.study_training import Training


@dataclass(frozen=True)
class Span:
    """The steps of one round within the study: `first` … `first + count − 1` of `total`."""

    first: int
    count: int
    total: int


def make_optimizer(net: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The study's optimiser over the parameters of `net` that are trained; of the others no gradient is made."""
    still = frozen(settings, [name for name, _ in net.named_parameters()])
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in still)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=settings.rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        trained,
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

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Put net, optimiser and random numbers where the round stood, before the first step; gives what was beside."""
        return {}

    def add(
        self,
        loss: float,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        beside: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        """Count a step; called when it is whole, with what else the next one needs."""
        self.done += 1
        self.total += loss


class Correction:
    """What a strategy adds to the local training: nothing, unless overridden. `client/corrections.py` has them."""

    def begin(self, net: nn.Module, span: Span) -> None:
        """The round begins; `net` has the weights that the site received."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The round goes on in the middle, with what `beside` gave there."""

    def watch(self) -> AbstractContextManager[object]:
        """Around the net's forward pass."""
        return nullcontext()

    def loss(self, image: Tensor) -> Tensor | None:
        """To be added to the loss of the step whose forward pass was watched."""
        return None

    def gradient(self, step: int, rate: float) -> None:
        """The gradient is there and may be changed; `step` counts in the study, `rate` is its learning rate."""

    def stepped(self, image: Tensor, label: Tensor, step: int, rate: float) -> None:
        """The step is done."""

    def beside(self) -> dict[str, Tensor]:
        """What a round that is interrupted here needs to go on, besides net and optimiser."""
        return {}

    def keep(self) -> dict[str, Tensor]:
        """What the site keeps after the round."""
        return {}

    def sent(self) -> dict[str, Tensor]:
        """What goes to the server beside the weights, by parameter."""
        return {}


def train(
    net: nn.Module,
    loss_of: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    settings: Training,
    span: Span,
    extra: Correction | None = None,
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
        extra: What the strategy adds.
        on_step: Called after each step.
        progress: Where the round goes on; none begins it.

    Raises:
        TrainingError: The loss or the gradient became NaN or infinite; the weights are then of no use.
    """
    device = next(net.parameters()).device
    extra, progress = extra or Correction(), progress or Progress()
    extra.begin(net, span)
    extra.restore(progress.restore(net, optimizer))
    net.train()
    for step, (image, label) in enumerate(batches, start=span.first + progress.done):
        rate = rate_at(settings, step, span.total)
        image, label = _to(image, device), label.to(device, non_blocking=True)
        loss = one_step(net, loss_of, optimizer, image, label, settings, step, rate, extra)
        extra.stepped(image, label, step, rate)
        progress.add(loss, net, optimizer, extra.beside)
        on_step()
    return progress.total / max(1, span.count)


def one_step(
    net: nn.Module,
    loss_of: nn.Module,
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    label: Tensor,
    settings: Training,
    step: int,
    rate: float,
    extra: Correction,
) -> float:
    """One step of `train`, the `step`th of the study; gives its loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with autocast(settings, image.device), extra.watch():
        output = net(image)
    loss = loss_of(output, label)
    if (added := extra.loss(image)) is not None:
        loss = loss + added
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    extra.gradient(step, rate)
    norm = nn.utils.clip_grad_norm_(net.parameters(), settings.clip or math.inf)
    if not torch.isfinite(norm + loss.detach()):
        raise TrainingError(
            f"step {step + 1}: loss {loss.item():g}, gradient norm {norm.item():g}. Lower training.rate, set "
            "training.clip, or look for extreme intensities in the site's scans"
        )
    optimizer.step()
    return float(loss.item())


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
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            like = parameters[int(index)].detach()
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape and value.ndim else value
            state.setdefault(int(index), {})[key] = moment
    if state:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
