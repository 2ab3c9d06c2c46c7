"""One round for the site's eyes only: what would leave if a study ran, and nothing that leaves."""

import common.quiet  # noqa: F401

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from flwr.app import ArrayRecord, Context, RecordDict

from client.app import make_app
from client.data.prepare import prepare
from client.device import pick_device
from client.gates import change_norm
from client.identity import Identity
from client.open_site import OpenSite, Workplace
from client.site import SiteConfig, site_of_home
from client.work.ledger import Line, line_of
from common import wire
from common.errors import IdentityError
from common.section import Part
from common.start import random_weights
from common.study import Study
from common.uplink import Uplink
from common.wire import ARRAYS, METRICS, Schema, Task

RUN = "dry-run"
_NODE = 1


def rehearse(home: Path, study: Study) -> Iterator[Line]:
    """Count cases, train the first round from the weights that the study begins with, and judge what comes of it.

    A study's `start` is not here: in its place are the random weights, of the same names and size.
    The same gate decides as in a real round. Prepared scans stay in the cache; all else is made in a folder that goes.

    Yields:
        What the ledger would say of each reply.

    Raises:
        PolicyError: The site's policy refuses the study.
        StudyError: site.yaml is wrong.
    """
    config = site_of_home(home)
    schema = Schema.of(study)
    config.policy.check_study(study, Uplink.of(study, schema).nbytes)
    site, to = config.name, "0" * 64
    with contextlib.suppress(IdentityError):  # not joined yet: to nobody
        site, to = Identity(home).federation().site, Identity(home).trainer_credentials().coordinator
    (home / "trainer").mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{RUN}-", dir=home / "trainer") as folder:
        yield from _round(config.model_copy(update={"name": site}), home / "cache", Path(folder), study, schema, to)


def _tasks(study: Study) -> tuple[Task, ...]:
    """What is asked first; of a study that trains nothing the whole of it."""
    join = Task(run=RUN, round=0, kind="join")
    if study.trains:
        validation = Task(run=RUN, round=1, kind="evaluate", part="validation", acknowledged=1)
        return join, Task(run=RUN, round=1, kind="train"), validation
    parts: tuple[Part, ...] = ("validation", "test")
    return join, *(Task(run=RUN, round=0, kind="evaluate", part=p) for p in parts if getattr(study.evaluation, p))


def _round(config: SiteConfig, cache: Path, folder: Path, study: Study, schema: Schema, to: str) -> Iterator[Line]:
    opened = OpenSite(
        config, folder, lambda s: prepare(s, config, cache=cache, home=folder), Workplace(pick_device(config.device)),
        policy=config.policy,
    )  # fmt: skip
    app = make_app(lambda context: opened)
    wire.become(run_id=1, node_id=_NODE)
    weights = wire.record(random_weights(study, schema))
    for task in _tasks(study):
        asked = wire.instruction(_NODE, study, task, None if task.kind == "join" else weights, None)
        wire.stamp(asked)
        context = Context(run_id=1, node_id=_NODE, node_config={}, state=RecordDict(), run_config={})
        reply = app(asked, context)
        if reply.has_error():
            yield line_of(task, study, to, 0, {}, None, error=reply.error.reason)
            continue
        update = reply.content.get(ARRAYS)
        arrays, norm, uplink = {}, None, Uplink.of(study, schema)
        if isinstance(update, ArrayRecord):
            arrays = {d: array.data for d, array in update.items()}
            base = wire.fitting_arrays(schema, asked)
            trained = uplink.decode(uplink.read(reply), base)
            norm, weights = change_norm(schema, base, trained), wire.record(trained)
        metrics = cast(dict[str, float], dict(reply.content[METRICS]))
        yield line_of(task, study, to, uplink.tensors, arrays, metrics, norm=norm)
