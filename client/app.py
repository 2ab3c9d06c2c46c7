"""The ClientApp: how a site answers the coordinator. Thin: the work is done in training, evaluation and data."""

import common.quiet  # noqa: F401

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import nn

from client.data.patches import Batches
from client.data.volume import SiteData
from client.evaluation import evaluate, summary
from client.gates import gate_in, gate_out
from client.halves import corrections
from client.leftover import send
from client.own_choice import Choice
from client.own_layers import load_own_layers, own_layers
from client.policy import Policy
from client.probe import loss_on_first
from client.site import Limits, SiteConfig
from client.training import (
    Progress,
    Span,
    channels_last,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    train,
)
from client.work.results import write_results
from client.work.state import SiteState
from common import wire
from common.errors import FedscanError, WireError
from common.losses import build_loss
from common.manifests import arrays_sha256
from common.nets import build_net
from common.own_choice import candidates
from common.schema import CONTROL
from common.seeds import derive
from common.study import Study
from common.traits import keeps_layers, traits_of
from common.uplink import Uplink
from common.wire import Flat, Schema, Task

log = logging.getLogger("fedscan.site")


class Workplace:
    """A net and a loss that stay warm from task to task; sites of one process may share it.

    Holds one net: every task first loads the weights that it was sent.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._study: str | None = None
        self._schema: tuple[str, Schema] = ("", Schema(()))

    def schema(self, study: Study) -> Schema:
        """What crosses of the study's net; it is not built for that."""
        key = study.digest()
        if key != self._schema[0]:
            self._schema = (key, Schema.of(study))
        return self._schema[1]

    def take(self, study: Study, message: Message, limits: Limits) -> tuple[nn.Module, nn.Module, Flat]:
        """Net with the message's weights, loss of `study`, and all that came.

        The weights pass the gate, which needs no memory, before the net is built: a study with a net of absurd size
        would have to bring as many bytes.

        Raises:
            WireError: The message does not hold the weights of the study's net, or they are beyond the limits.
        """
        key = study.digest()
        schema = self.schema(study)
        flat = gate_in(schema, message, limits)
        if key != self._study:
            self._net = channels_last(build_net(study).to(self.device))
            self._loss = build_loss(study, self._net).to(self.device)
            self._study = key
        schema.load(flat, self._net)
        return self._net, self._loss, flat


class OpenSite:
    """A site ready to work: its configuration, its cases, its folder on disk.

    Args:
        config: The site's own settings.
        home: Where the site keeps its state and its per-case results; never leaves the site.
        load: Gives the site's cases, prepared for a study.
        workplace: Where its nets live.
        on_step: Called after each training step.
        steps: Training steps per round; as the study says for the site's own cases if none.
        policy: What may leave; a simulation has none.

    Attributes:
        progress: Gives, for the stream of batches and the number of steps, how far the round has come already.
        on_case: Called with (cases done, cases in all) after each case that is evaluated.
    """

    def __init__(
        self,
        config: SiteConfig,
        home: Path,
        load: Callable[[Study], SiteData],
        workplace: Workplace,
        on_step: Callable[[], None] = lambda: None,
        steps: Callable[[Study], int] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.config = config
        self.home = home
        self.workplace = workplace
        self.on_step = on_step
        self.progress: Callable[[int, int], Progress] = lambda stream, count: Progress()
        self.on_case: Callable[[int, int], None] = lambda done, total: None
        self._load = load
        self._steps = steps
        self.policy = policy
        self._plan: str | None = None
        self._batches: Batches | None = None

    def data(self, study: Study) -> SiteData:
        """The site's cases for `study`; prepared once for all studies that see them alike."""
        key = json.dumps(study.model_dump(mode="json", include={"data", "plan", "evaluation"}), sort_keys=True)
        if key != self._plan:
            self._data, self._plan, self._batches = self._load(study), key, None
        return self._data

    def batches(self, study: Study) -> Batches:
        """The site's stream of training batches.

        It is seeded by the study and by what the cases hold, not by the site's name: equal data give equal batches.
        """
        cases = self.data(study).train
        stream = derive(study.seed, "batches", *sorted(c.content for c in cases))
        if self._batches is None or self._batches.study.training != study.training:
            self._batches = Batches(cases, study, stream)
        return self._batches

    def steps(self, study: Study) -> int:
        """Training steps per round."""
        if self._steps is not None:
            return self._steps(study)
        if study.training.steps is not None:
            return study.training.steps
        return (study.training.epochs or 1) * self.batches(study).steps_per_epoch


def make_app(open_site: Callable[[Context], OpenSite]) -> ClientApp:
    """The ClientApp over whichever site `open_site` finds for a node."""
    app = ClientApp()

    def guarded(
        handle: Callable[[OpenSite, Message, Study, Task], Message],
    ) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            try:
                study, task = wire.read_instruction(message)
                site = open_site(context)
                reply = handle(site, message, study, task)
                uplink = Uplink.of(study, site.workplace.schema(study))
                return gate_out(uplink, study, task, site.config.name, reply, site.policy)
            except FedscanError as error:
                log.error("%s: %s", error.code, error)
                return wire.error_reply(message, error.code)
            except Exception:
                log.exception("unexpected error")
                return wire.error_reply(message, FedscanError.code)

        return answer

    app.query()(guarded(_join))
    app.train()(guarded(_train))
    app.evaluate()(guarded(_evaluate))
    return app


def _join(site: OpenSite, message: Message, study: Study, task: Task) -> Message:
    data = site.data(study)
    patients = {c.patient for c in (*data.train, *data.validation, *data.test)}
    counts = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    steps = site.steps(study) if data.train else 0
    told: dict[str, float] = {**counts, "patients": len(patients), "steps": steps}
    if site.policy is not None:
        told = site.policy.counts(told)
    return wire.site_reply(message, site.config.name, told)


def _train(site: OpenSite, message: Message, study: Study, task: Task) -> Message:
    started = time.monotonic()
    if not 1 <= task.round <= study.rounds.number:
        raise WireError(f"round {task.round} of a study with {study.rounds.number} rounds: nothing is trained")
    net, loss, flat = site.workplace.take(study, message, site.config.limits)
    count = site.steps(study)
    if site.policy is not None:
        site.policy.check_training(len(site.data(study).train), count)
    state = SiteState(site.home / "state" / task.run)
    state.clean(task.acknowledged, task.best if keeps_layers(study) or task.terms.personal else 0)
    kept = state.load(task.acknowledged)
    load_own_layers(net, study, kept)
    optimizer = make_optimizer(net, study.training)
    if study.training.optimizer_state == "keep":
        restore_optimizer(optimizer, kept)
    span = Span((task.round - 1) * count, count, study.rounds.number * count)
    batches = site.batches(study)
    progress, schema = site.progress(batches.stream, count), site.workplace.schema(study)
    extra = corrections(study, task.terms, schema, flat, kept, loss, partial(derive, batches.stream, "personal"))
    gap = traits_of(study).gap
    received = loss_on_first(net, loss, batches, study.training) if gap else 0.0
    torch.manual_seed(derive(batches.stream, "dropout", task.round))
    mean_loss = train(
        net,
        loss,
        optimizer,
        batches.prefetch(span.first + progress.done, count - progress.done),
        study.training,
        span,
        extra,
        site.on_step,
        progress,
    )
    moments = dict(optimizer_tensors(optimizer)) if study.training.optimizer_state == "keep" else {}
    sent = {CONTROL + name: value for name, value in extra.sent().items()}
    update, left = send(Uplink.of(study, schema), schema.pack(net.state_dict() | sent), flat, kept)
    state.stage(task.round, moments | own_layers(net, study) | extra.keep() | left)
    metrics = {"num-examples": len(site.data(study).train), "steps": count, "loss": mean_loss,
               "seconds": progress.seconds + time.monotonic() - started}  # fmt: skip
    if gap:
        metrics |= {"loss-received": received, "loss-trained": loss_on_first(net, loss, batches, study.training)}
    return wire.train_reply(message, update, metrics)


def _evaluate(site: OpenSite, message: Message, study: Study, task: Task) -> Message:
    started = time.monotonic()
    if task.part == "train":
        raise WireError("a model is never evaluated on training cases")
    if task.round > study.rounds.number:
        raise WireError(f"round {task.round} of a study with {study.rounds.number} rounds: nothing is evaluated")
    cases, small = getattr(site.data(study), task.part), 1
    if site.policy is not None:
        site.policy.check_evaluation(len(cases))
        small = site.policy.small
    net, loss, flat = site.workplace.take(study, message, site.config.limits)
    # The final test is made with the weights of the best round, and so with what the site kept of that one.
    counted = min(task.acknowledged, task.round)
    kept = SiteState(site.home / "state" / task.run).load(counted)
    load_own_layers(net, study, kept)
    results = evaluate(net, cases, study, site.workplace.device, site.on_case)
    write_results(site.home / "results" / task.run / f"round-{task.round:05d}-{task.part}.json", study, results)
    told = summary(results, study, small)
    if task.part == "test" and candidates(study):
        told |= Choice(site, study, task, net, loss, kept, arrays_sha256(flat), small).make(results)
    return wire.metrics_reply(message, {**told, "seconds": time.monotonic() - started})
