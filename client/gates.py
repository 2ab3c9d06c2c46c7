"""The two gates of a site: what may come in, and what may leave. Pure, and the same in every engine."""

import common.quiet  # noqa: F401

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord
from numpy.typing import NDArray

from client.policy import Policy
from client.site import Limits
from common import wire
from common.errors import WireError
from common.study import Study
from common.uplink import Uplink
from common.wire import ARRAYS, METRICS, TASK, Flat, Schema, Task

_CHUNK = 1 << 20


def gate_in(schema: Schema, message: Message, limits: Limits) -> Flat:
    """The weights of a task, as read-only views of its bytes.

    Args:
        schema: Of the study.
        message: What came.
        limits: The site's own.

    Raises:
        WireError: They are not exactly the schema's bytes, not all finite, or their norm is beyond the site's limit.
    """
    flat = wire.fitting_arrays(schema, message)
    # One look at the values answers both questions: a sum of squares is finite if all of them are.
    norm = float_norm(flat)
    if not math.isfinite(norm):
        raise WireError("the task's weights hold NaN or infinite values")
    if norm > limits.norm:
        raise WireError(f"the task's weights have the norm {norm:g}; site.yaml allows {limits.norm:g} (limits.norm)")
    return flat


def gate_out(
    uplink: Uplink, study: Study, task: Task, site: str, reply: Message, policy: Policy | None = None
) -> Message:
    """`reply`, when it holds nothing but what a reply to `task` may hold.

    That is: the arrays of `uplink`, whole and finite, with an update and with nothing else; exactly the metrics of the
    closed list for this kind of task, each a finite number; to `join` the site's name. Or the code of an error.
    Under a policy the numbers are rounded, and neither too few cases nor too large an update pass.

    Raises:
        WireError: Something else is in it, or something is missing.
        PolicyError: It tells of too little, or too much.
    """
    if reply.has_error():
        if reply.error.reason not in wire.ERROR_CODES:
            raise WireError("the reply's error is not a code of the closed list")
        return reply
    wanted, keys = {
        "join": ({METRICS, TASK}, wire.JOIN_METRIC_KEYS),
        "train": ({ARRAYS, METRICS}, wire.train_metric_keys(study)),
        "evaluate": ({METRICS}, wire.evaluate_metric_keys(study, task.part)),
        "result": ({METRICS}, wire.RESULT_METRIC_KEYS),
    }[task.kind]
    if set(reply.content) != wanted:
        raise WireError(f"a reply to {task.kind} holds {', '.join(sorted(wanted))} and nothing else")
    metrics = wire.read_metrics(reply, keys, {})
    name = reply.content.get(TASK)
    if name is not None and (not isinstance(name, ConfigRecord) or dict(name) != {"site": site}):
        raise WireError("a site tells its own name and nothing else")
    if task.kind == "train":
        uplink.read(reply)
    if policy is not None:
        leaving = policy.fitting(task.kind, metrics, uplink.nbytes if task.kind == "train" else 0)
        reply.content[METRICS] = MetricRecord(dict(leaving))
    return reply


def change_norm(schema: Schema, before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """L2 norm of the change of the net's floating-point values, in flat arrays; summed in float64, never copied."""
    total = 0.0
    for dtype, n in schema.weights.sizes.items():
        form = np.dtype(dtype)
        if form.kind != "f":
            continue
        old, new = (np.frombuffer(arrays[dtype], form.newbyteorder("<"), n) for arrays in (before, after))
        for start in range(0, n, _CHUNK):
            change = new[start : start + _CHUNK].astype(np.float64) - old[start : start + _CHUNK]
            total += float(change @ change)
    return math.sqrt(total)


def float_norm(flat: Mapping[str, NDArray[np.generic]]) -> float:
    """L2 norm over all floating-point values; NaN or infinite when one of them is. Summed in float64, never copied."""
    total = 0.0
    for values in flat.values():
        if values.dtype.kind == "f":
            for start in range(0, values.size, _CHUNK):
                chunk = values[start : start + _CHUNK].astype(np.float64)
                total += float(chunk @ chunk)
    return math.sqrt(total) if total >= 0 else math.nan
