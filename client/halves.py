"""From what a strategy asks of a site's training to the corrections that do it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from client.corrections import Control, Dynamic, HeadFirst, Kept, Proximal, under
from client.second_nets import Contrast, Personal
from client.training import Correction, Span
from common.nets.head import head_modules, head_of
from common.schema import CONTROL, Flat, Schema
from common.study import Study
from common.traits import traits_of
from common.wire import Terms


class Several(Correction):
    """All of them, one after the other."""

    def __init__(self, parts: Sequence[Correction]) -> None:
        self._parts = tuple(parts)

    def begin(self, net: nn.Module, span: Span) -> None:
        """Each begins."""
        for part in self._parts:
            part.begin(net, span)

    def restore(self, tensors: Kept) -> None:
        """Each from its own."""
        for i, part in enumerate(self._parts):
            part.restore(under(f"{i}.", tensors))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Each watches."""
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part.watch())
            yield

    def loss(self, image: Tensor) -> Tensor | None:
        """The sum of what they add."""
        added = [term for part in self._parts if (term := part.loss(image)) is not None]
        return torch.stack(added).sum() if added else None

    def gradient(self, step: int, rate: float) -> None:
        """Each changes it."""
        for part in self._parts:
            part.gradient(step, rate)

    def stepped(self, image: Tensor, label: Tensor, step: int, rate: float) -> None:
        """Each is told."""
        for part in self._parts:
            part.stepped(image, label, step, rate)

    def beside(self) -> dict[str, Tensor]:
        """What each needs."""
        return {f"{i}.{name}": t for i, part in enumerate(self._parts) for name, t in part.beside().items()}

    def keep(self) -> dict[str, Tensor]:
        """What each keeps; their names differ."""
        return {name: t for part in self._parts for name, t in part.keep().items()}

    def sent(self) -> dict[str, Tensor]:
        """What each sends."""
        return {name: t for part in self._parts for name, t in part.sent().items()}


def corrections(
    study: Study, terms: Terms, schema: Schema, flat: Flat, kept: Kept, loss_of: nn.Module, seed: Callable[[int], int]
) -> Several:
    """What `terms` add to a round.

    Args:
        study: What is run.
        terms: The strategy's.
        schema: Of the study.
        flat: What the site received.
        kept: What the site kept after its last counted round.
        loss_of: The study's loss.
        seed: Gives the seed of a step, for a second net that is trained beside.
    """
    parts: list[Correction] = []
    if traits_of(study).control:
        parts.append(Control(under(CONTROL, schema.tensors(flat, "control")), kept))
    if terms.proximal:
        parts.append(Proximal(terms.proximal))
    if terms.dynamic:
        parts.append(Dynamic(terms.dynamic, kept))
    if terms.contrast:
        heads = lambda net: head_modules(net, study)  # noqa: E731 -- one line, used once
        parts.append(Contrast(terms.contrast, terms.temperature, heads, study.training, kept))
    if terms.head:
        parts.append(HeadFirst(terms.head, head_of(study)))
    if terms.personal:
        parts.append(Personal(terms.personal, loss_of, study.training, seed, kept))
    return Several(parts)
