"""The ClientApp: how a site answers the coordinator. Thin: the work is done in training, evaluation and data."""

import common.quiet  # noqa: F401

import logging
import time
from collections.abc import Callable
from functools import partial

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.evaluation import evaluate, summary
from client.gates import gate_out
from client.halves import corrections
from client.leftover import send
from client.open_site import OpenSite
from client.own_choice import Choice
from client.own_layers import load_own_layers, own_layers
from client.probe import loss_on_first
from client.training import (
    Span,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    train,
)
from client.work.results import write_results
from client.work.state import SiteState
from common import wire
from common.errors import FedscanError, WireError
from common.manifests import arrays_sha256
from common.own_choice import candidates
from common.schema import CONTROL
from common.seeds import derive
from common.study import Study
from common.traits import keeps_layers, traits_of
from common.uplink import Uplink
from common.wire import Task

log = logging.getLogger("fedscan.site")


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
    # What the coordinator's own memory of this site rests on, and layers that nobody else has, cannot begin anew.
    needed = keeps_layers(study) or traits_of(study).control or task.terms.dynamic > 0
    kept = state.load(task.acknowledged, needed)
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
