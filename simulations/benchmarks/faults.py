"""A site at fault, for benchmarks and tests: one that stays away, or one that poisons its updates.

The fault is put on between the site's own code and the coordinator's, where a hospital's people cannot reach by any
setting: no study, site file or strategy has a word for it.
"""

from typing import NamedTuple

from flwr.app import Message
from flwr.clientapp import ClientApp

from common import wire
from common.errors import FedscanError
from common.schema import Flat, Schema
from simulations.dials import is_one_of
from simulations.inline import FIRST_SITE, InlineGrid


class Fault(NamedTuple):
    """What is wrong with a site once it has joined.

    Attributes:
        away: Share of the rounds, spread evenly, in which it answers nothing.
        factor: By which it multiplies its update: −1 turns the sign round, NaN makes all of it NaN, 1 is honest.
    """

    away: float = 0.0
    factor: float = 1.0


HONEST = Fault()


class FaultyGrid(InlineGrid):
    """The inline grid with one site at fault; every other site's messages pass untouched.

    Args:
        app: The ClientApp of all sites.
        sites: How many there are.
        at: Which of them is at fault, from 0.
        fault: How.
    """

    def __init__(self, app: ClientApp, sites: int, at: int, fault: Fault) -> None:
        super().__init__(app, sites)
        self._node, self._fault = FIRST_SITE + at, fault

    def _answer(self, message: Message) -> Message:
        if message.metadata.dst_node_id != self._node or message.metadata.message_type == "query":
            return super()._answer(message)
        study, task = wire.read_instruction(message)
        if is_one_of(self._fault.away, task.round - 1):
            return wire.error_reply(message, FedscanError.code)
        reply = super()._answer(message)
        if message.metadata.message_type != "train" or self._fault.factor == 1 or reply.has_error():
            return reply
        schema = Schema.of(study)
        base, sent = wire.fitting_arrays(schema, message), wire.fitting_arrays(schema, reply)
        metrics = wire.read_metrics(reply, wire.train_metric_keys(study), {})
        return wire.train_reply(message, poisoned(schema, base, sent, self._fault.factor), metrics)


def poisoned(schema: Schema, base: Flat, sent: Flat, factor: float) -> Flat:
    """The update from `base` to `sent`, multiplied by `factor`.

    Parameters become base + factor · (sent − base), and a control variate, which is sent as a change, factor times as
    large. Running statistics stay honest: a variance below 0 would break any net for a reason of its own.
    """
    result = {dtype: values.copy() for dtype, values in sent.items()}
    for place in schema.places("parameter"):
        start, end = base["float32"][place], sent["float32"][place]
        result["float32"][place] = start + factor * (end - start)
    for place in schema.places("control"):
        result["float32"][place] = factor * sent["float32"][place]
    return result
