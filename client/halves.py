"""From what a strategy asks of a site's training to the corrections that do it."""

from collections.abc import Callable

from torch import nn

from client.corrections import (
    Contrast,
    Control,
    Dynamic,
    HeadFirst,
    Kept,
    Personal,
    Proximal,
    Several,
    under,
)
from client.training import Correction
from common.nets.head import head_modules, head_of
from common.schema import CONTROL, Flat, Schema
from common.study import Study
from common.traits import traits_of
from common.wire import Terms


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
