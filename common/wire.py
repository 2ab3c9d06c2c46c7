"""What may cross between a site and the coordinator: names, shapes and bytes, both ways.

Tensors travel as one flat array per dtype, as the study's schema (`common/schema.py`) says. Everything else in a
message is one of the closed lists below.
"""

import json
import math
import uuid
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common import errors
from common.errors import FedscanError, WireError
from common.metrics import score_limits
from common.own_choice import PREFIX, choice_limits
from common.schema import Entry as Entry
from common.schema import Flat as Flat
from common.schema import Schema as Schema
from common.schema import running_statistics as running_statistics
from common.section import AT_SITE, Part
from common.study import Study
from common.traits import traits_of

ARRAYS, METRICS, TASK = "arrays", "metrics", "task"
ASSIGNMENT, HEADER = "assignment", "header"  # what is signed: the coordinator's task, the site's reply
STYPE = "fedscan.flat"  # little-endian values, no header
ERROR_CODES = errors.ERROR_CODES


class Terms(BaseModel):
    """What a strategy asks of the local training: its client half.

    Attributes:
        proximal: μ of the term μ/2‖w − w_global‖² (Li et al. 2020, FedProx, arXiv 1812.06127).
        dynamic: α of a linear and a quadratic term (Acar et al. 2021, FedDyn, arXiv 2111.04263).
        contrast: μ of a term that draws features to the global net's (Li et al. 2021, MOON, arXiv 2103.16257).
        temperature: τ of that term.
        personal: λ that ties a second net, which stays at the site, to the global one (Li et al. 2021, Ditto, arXiv
            2012.04221).
        head: Share of the round's steps that train the head alone; the rest trains the body alone (Collins et al.
            2021, FedRep, arXiv 2102.07078). 0 trains both together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    proximal: float = Field(0.0, ge=0, le=1000)
    dynamic: float = Field(0.0, ge=0, le=1000)
    contrast: float = Field(0.0, ge=0, le=1000)
    temperature: float = Field(0.5, gt=0, le=100)
    personal: float = Field(0.0, ge=0, le=1000)
    head: float = Field(0.0, ge=0, lt=1)


class Task(BaseModel):
    """One thing that a site is asked to do; it is the same task whenever (run, round, kind, part) are the same.

    Attributes:
        run: Names the run in our own words, never Flower's, whose ids die with its process.
        kind: `join` asks for the number of cases only; `result` brings the final model and asks for nothing.
        part: The cases to evaluate on.
        acknowledged: The last round whose reply of this site was counted, 0 for none: what the site keeps between
            rounds goes on from there.
        best: The round with the best validation so far, 0 for none: the site still needs what it kept of that round,
            because the final test is made with that round's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$")
    round: int = Field(ge=0)
    kind: Literal["join", "train", "evaluate", "result"]
    part: Part = "train"
    acknowledged: int = Field(0, ge=0)
    best: int = Field(0, ge=0)
    terms: Terms = Terms()


def instruction(node_id: int, study: Study, task: Task, arrays: ArrayRecord | None, ttl: float | None) -> Message:
    """The message that asks a node to do `task`; `arrays` may be shared by many messages."""
    content = RecordDict({TASK: ConfigRecord({"task": task.model_dump_json(), "study": study.canonical().decode()})})
    if arrays is not None:
        content[ARRAYS] = arrays
    kind = "query" if task.kind == "join" else task.kind
    return Message(content, dst_node_id=node_id, message_type=kind, ttl=ttl, group_id=f"{task.run}/{task.round}")


def read_instruction(message: Message) -> tuple[Study, Task]:
    """Study and task of a message at a site; raises WireError when either is not exactly of its form."""
    try:
        config = message.content[TASK]
        task = Task.model_validate_json(str(config["task"]))
        raw = str(config["study"])
        study = Study.model_validate(json.loads(raw), context=AT_SITE)
    except (KeyError, ValueError, ValidationError, TypeError) as error:
        raise WireError(f"the message's study or task cannot be read: {type(error).__name__}") from None
    if study.canonical() != raw.encode():
        raise WireError("the message's study is not in its canonical form")
    return study, task


def record(flat: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Flat arrays as Flower's record."""
    return ArrayRecord(
        {
            dtype: Array(dtype, (values.size,), STYPE, values.astype(f"<{values.dtype.str[1:]}", copy=False).tobytes())
            for dtype, values in flat.items()
        }
    )


def record_of(arrays: Mapping[str, bytes]) -> ArrayRecord:
    """As `record`, of flat arrays that are bytes already: they are taken as they are, without a copy."""
    return ArrayRecord({d: Array(d, (len(raw) // np.dtype(d).itemsize,), STYPE, raw) for d, raw in arrays.items()})


class Sized(Protocol):
    """Says which arrays a message holds: `Schema` downwards, `Uplink` upwards."""

    @property
    def sizes(self) -> dict[str, int]:
        """Elements per dtype."""


def read_arrays(schema: Sized, message: Message) -> Flat:
    """As `fitting_arrays`; raises WireError also when a value is NaN or infinite."""
    flat = fitting_arrays(schema, message)
    for dtype, values in flat.items():
        if not finite(values):
            raise WireError(f"array {dtype} holds NaN or infinite values")
    return flat


def fitting_arrays(schema: Sized, message: Message) -> Flat:
    """The flat arrays of a message, as read-only views of its bytes; raises WireError unless they fit exactly.

    Checked before anything is decoded: the set of dtypes, form, shape and the byte count. No value is looked at.
    """
    # Not content.array_records: that view is a reference cycle, in which the bytes of every message would live on.
    arrays = message.content.get(ARRAYS)
    if not isinstance(arrays, ArrayRecord) or set(arrays) != set(schema.sizes):
        raise WireError("the message's arrays are not the ones of the study's schema")
    flat: Flat = {}
    for dtype, n in schema.sizes.items():
        array = arrays[dtype]
        if (array.dtype, tuple(array.shape), array.stype) != (dtype, (n,), STYPE):
            raise WireError(f"array {dtype}: its form is not the schema's")
        if len(array.data) != n * np.dtype(dtype).itemsize:
            raise WireError(f"array {dtype}: {len(array.data)} bytes, the schema has {n * np.dtype(dtype).itemsize}")
        flat[dtype] = np.frombuffer(array.data, dtype=np.dtype(dtype).newbyteorder("<"))
    return flat


def finite(values: NDArray[Any], chunk: int = 1 << 20) -> bool:
    """Whether all values are finite; looks at a chunk at a time, so that a large array is never copied."""
    return all(bool(np.isfinite(values[i : i + chunk]).all()) for i in range(0, values.size, chunk))


def train_reply(message: Message, flat: Mapping[str, NDArray[Any]], metrics: Mapping[str, float]) -> Message:
    """A site's update."""
    return Message(RecordDict({ARRAYS: record(flat), METRICS: MetricRecord(dict(metrics))}), reply_to=message)


def metrics_reply(message: Message, metrics: Mapping[str, float]) -> Message:
    """A site's answer without tensors: its case counts, or its validation."""
    return Message(RecordDict({METRICS: MetricRecord(dict(metrics))}), reply_to=message)


def site_reply(message: Message, name: str, metrics: Mapping[str, float]) -> Message:
    """A site's answer to `join`: its name and its case counts."""
    content = RecordDict({METRICS: MetricRecord(dict(metrics)), TASK: ConfigRecord({"site": name})})
    return Message(content, reply_to=message)


def error_reply(message: Message, code: str) -> Message:
    """A site's word that it has no answer: a code from the closed list, nothing else."""
    known = code if code in ERROR_CODES else FedscanError.code
    return Message(Error(code=ERROR_CODES.index(known) + 1, reason=known), reply_to=message)


def error_code(message: Message) -> str:
    """Why a site has no answer: a code of the closed list, whatever it wrote."""
    reason = message.error.reason
    return reason if reason in ERROR_CODES else "no reply"


def train_metric_keys(study: Study) -> frozenset[str]:
    """Every metric that accompanies an update: with some strategies, two losses on the same patches as well."""
    gap = {"loss-received", "loss-trained"} if traits_of(study).gap else set()
    return frozenset({"num-examples", "steps", "loss", "seconds", *gap})


def evaluate_metric_keys(study: Study, part: Part = "validation") -> frozenset[str]:
    """Every metric that an evaluation returns: cases and mean Dice over all labels; per label see `score_limits`.

    The final test also returns what the site ends with, see `choice_limits`.
    """
    return frozenset(evaluate_metric_limits(study, part))


def evaluate_metric_limits(study: Study, part: Part = "validation", counted: float = math.inf) -> dict[str, float]:
    """The metrics of an evaluation, each with the largest value that it may have; `counted` for what has no end."""
    scores = score_limits(study.metrics(), study.data.labels, study.evaluation.spread)
    limits: dict[str, float | None] = {"num-examples": None, "dice": 1.0, "seconds": None, **scores}
    if part == "test":
        limits |= choice_limits(study, limits)
    return {key: counted if most is None else most for key, most in limits.items()}


# The site's word that it has the result; always 1.
RESULT_METRIC_KEYS = frozenset({"stored"})
JOIN_METRIC_KEYS = frozenset({"train", "validation", "test", "patients", "steps"})


_SIGNED = ("loss", "volume_error.")


def read_metrics(message: Message, keys: frozenset[str], limits: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a reply; raises WireError unless they are exactly `keys`, finite, and within 0 … limit."""
    if message.has_error():
        raise WireError(error_code(message))
    found = message.content.get(METRICS)
    if not isinstance(found, MetricRecord) or set(found) != keys:
        raise WireError("the reply's metrics are not the ones of the study's schema")
    values: dict[str, float] = {}
    for key in sorted(keys):
        value = found[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise WireError(f"metric {key} is not a finite number")
        if not 0 <= value <= limits.get(key, math.inf) and not key.removeprefix(PREFIX).startswith(_SIGNED):
            raise WireError(f"metric {key} is {value:g}, outside 0 … {limits.get(key, math.inf):g}")
        values[key] = value
    return values


def stamp(message: Message) -> str:
    """Give a message an id, as Flower's server does when it takes one in."""
    message_id = uuid.uuid4().hex
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def become(run_id: int, node_id: int, task_id: int = 1) -> None:
    """Say who this process is; Flower wants to know before the first instruction can be made."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, task_id
