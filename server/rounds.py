"""The rounds of a run: ask the sites to train, fold their replies, let them validate, checkpoint; then test."""

import common.quiet  # noqa: F401

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import Message
from flwr.serverapp import Grid
from pydantic import TypeAdapter, ValidationError

from common import wire
from common.errors import RoundError, WireError
from common.names import STRATEGIES
from common.nets import build_net
from common.seeds import derive
from common.study import Name, Part, Study
from common.wire import Flat, Schema, Task
from server.checkpoint import Checkpoints, State
from server.events import Event, Events, read_events
from server.exchange import exchange
from server.spool import Reply, Spool
from server.strategies.fedavg import FedAvg

MOST = 1e9  # of anything that a site counts


@dataclass(frozen=True)
class Member:
    """A site as the coordinator knows it: its node, and the case counts that it gave when it joined."""

    name: str
    node_id: int
    train: int
    validation: int
    test: int
    patients: int
    steps: int


def join(grid: Grid, study: Study, deadline: float | None = None) -> dict[str, Member]:
    """Ask every node who it is and how many cases it has; a node that cannot say is left out.

    Raises:
        RoundError: Two nodes say that they are the same site.
    """
    task = Task(run="join", round=0, kind="join")
    messages = {str(n): wire.instruction(n, study, task, None, deadline) for n in grid.get_node_ids()}
    members: dict[str, Member] = {}

    def take(node: str, reply: Message) -> None:
        try:
            counts = wire.read_metrics(reply, wire.JOIN_METRIC_KEYS, dict.fromkeys(wire.JOIN_METRIC_KEYS, MOST))
            # The name becomes a file's name.
            name = TypeAdapter(Name).validate_python(reply.content.config_records[wire.TASK]["site"])
        except (WireError, KeyError, ValidationError):
            return
        if name in members:
            raise RoundError(f"two nodes say that they are the site {name}; every site needs a name of its own")
        members[name] = Member(name, int(node), **{k: int(v) for k, v in counts.items()})

    exchange(grid, messages, take, deadline)
    return dict(sorted(members.items()))


class Run:
    """One run of a study over a fixed roster of sites.

    Args:
        grid: Flower's way to the sites.
        study: What is run; its digest is the run's.
        folder: The run's folder; a run that is there already is gone on with.
        train: The sites that train, in the order in which their replies are folded.
        test: The sites on which the best model is tested at the end.
        validate: The sites by whose mean the best round is chosen; those that train if none.
        listener: Told of each event as it happens.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        folder: Path,
        train: Sequence[Member],
        test: Sequence[Member],
        validate: Sequence[Member] | None = None,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        self.study = study
        self.folder = folder
        self._grid = grid
        self._train = {m.name: m for m in train}
        self._test = {m.name: m for m in test}
        self._validate_on = {m.name: m for m in (train if validate is None else validate)}
        self._schema = Schema.of(study)
        self._strategy: FedAvg = STRATEGIES.get(study.strategy.name)(**study.strategy.options)
        self._checkpoints = Checkpoints(folder / "checkpoints", study.digest(), self._schema)
        self._spool = Spool(folder / "spool", self._schema)
        self._events = Events(folder / "events.jsonl", listener)
        self._metric_keys = wire.evaluate_metric_keys(study)

    def start(self) -> State:
        """Run all rounds and the final test, or what is left of them; raises RoundError when the quorum is missed."""
        state, flat = self._begin()
        mark = time.monotonic()
        while state.round < self.study.rounds.number:
            flat = self._round(state, flat)
            now = time.monotonic()
            state.seconds, mark = state.seconds + now - mark, now
            self._checkpoints.write(state, flat)
            self._spool.clear()
            self._events.append("checkpoint", round=state.round, best_round=state.best_round)
        if not state.finished:
            self._final_test(state)
            state.seconds += time.monotonic() - mark
            state.finished = True
            self._checkpoints.write(state)
        # A crash between that checkpoint and this event must not lose the event.
        if [e["event"] for e in read_events(self._events.path)[-1:]] != ["finished"]:
            self._events.append("finished", round=state.round, seconds=state.seconds, best_round=state.best_round)
        return state

    def best(self) -> Flat:
        """The weights of the round with the best validation metric."""
        state = self._checkpoints.state()
        if state is None:
            raise RoundError(f"{self.folder} holds no finished round")
        return self._checkpoints.weights(state.best_round or state.round)

    def _begin(self) -> tuple[State, Flat]:
        state = self._checkpoints.state()
        if state is not None:
            if not state.finished:
                self._events.append("resumed", after=state.round)
            return state, self._checkpoints.weights(state.round)
        state = State(self.study.digest())
        torch.manual_seed(derive(self.study.seed, "weights"))
        flat = self._schema.pack(build_net(self.study).state_dict())
        self._events.append(
            "started",
            digest=state.digest,
            sites=list(self._train),
            rounds=self.study.rounds.number,
            bytes=self._schema.nbytes,
        )
        self._checkpoints.write(state, flat)
        return state, flat

    def _round(self, state: State, flat: Flat) -> Flat:
        """One round; `state` is brought up to date and the new global weights are returned."""
        number = state.round + 1
        self._collect(number, state, flat)
        replies = self._spool.replies(number, tuple(self._train))
        needed = math.ceil(self.study.rounds.quorum * len(self._train) - 1e-9)
        if len(replies) < needed:
            self._events.append("stopped", round=number, replies=len(replies), needed=needed)
            raise RoundError(
                f"{self.folder.name}, round {number}: {len(replies)} of {len(self._train)} sites sent a usable update, "
                f"{needed} are needed (rounds.quorum); {self._events.path} says why each failed; the same command with "
                "--resume goes on here"
            )
        flat = self._strategy.fold(self._schema, replies, self._weights(replies))
        state.round = number
        state.acknowledged |= {r.site: number for r in replies}
        self._events.append("folded", round=number, sites=[r.site for r in replies])
        if number % self.study.evaluation.every == 0 or number == self.study.rounds.number:
            metric = self._validate(state, flat)
            if metric is not None and metric > state.best_metric:
                state.best_metric, state.best_round = metric, number
        return flat

    def _collect(self, number: int, state: State, flat: Flat) -> None:
        """Spool the updates of all sites whose update is not there yet."""
        there = set()
        for reply in self._spool.replies(number, tuple(self._train)):
            # Spooled by a process that was killed; the event may not have been written, and `resumed` undid it anyway.
            there.add(reply.site)
            self._trained(number, reply.site, reply.metrics)

        def take(site: str, reply: Message) -> None:
            # No site may claim more cases than it joined with, and so a larger say.
            limits = {"num-examples": self._train[site].train, "steps": self._train[site].steps, "seconds": MOST}
            metrics = wire.read_metrics(reply, wire.train_metric_keys(), limits)
            if metrics["num-examples"] < 1:
                raise WireError("the update was computed on no case")
            arrays = wire.read_arrays(self._schema, reply)
            self._spool.add(number, site, arrays, metrics)
            self._trained(number, site, metrics)

        self._ask(
            {name: m for name, m in self._train.items() if name not in there},
            lambda name: Task(run=self.folder.name, round=number, kind="train",
                              acknowledged=state.acknowledged.get(name, 0), best=state.best_round,
                              terms=self._strategy.terms()),
            flat, number, take,
        )  # fmt: skip

    def _trained(self, number: int, site: str, metrics: Mapping[str, float]) -> None:
        self._events.append("trained", round=number, site=site, bytes=self._schema.nbytes, **metrics)

    def _validate(self, state: State, flat: Flat) -> float | None:
        """The mean validation Dice over the sites; None unless all that have validation cases could say.

        A mean over fewer sites is no measure: without its hardest site every round looks better.
        """
        scores = self._evaluate(flat, self._validate_on, state.round, "validation", state)
        asked = sum(m.validation > 0 for m in self._validate_on.values())
        return sum(scores) / asked if asked and len(scores) == asked else None

    def _final_test(self, state: State) -> None:
        chosen = state.best_round or state.round
        self._evaluate(self._checkpoints.weights(chosen), self._test, chosen, "test", state)

    def _evaluate(
        self, flat: Flat, members: Mapping[str, Member], number: int, part: Part, state: State
    ) -> list[float]:
        """Mean Dice of each site that has cases in `part`, in roster order."""
        scores: dict[str, float] = {}

        def take(site: str, reply: Message) -> None:
            limits = {k: 1.0 if k.startswith("dice") else MOST for k in self._metric_keys}
            metrics = wire.read_metrics(reply, self._metric_keys, limits)
            if metrics["num-examples"] > 0:
                scores[site] = metrics["dice"]
            self._events.append("evaluated", round=number, part=part, site=site, **metrics)

        having = {name: m for name, m in members.items() if getattr(m, part) > 0}
        self._ask(
            having,
            lambda name: Task(run=self.folder.name, round=number, kind="evaluate", part=part,
                              acknowledged=state.acknowledged.get(name, 0)),
            flat, number, take,
        )  # fmt: skip
        return [scores[name] for name in having if name in scores]

    def _ask(
        self,
        members: Mapping[str, Member],
        task: Callable[[str], Task],
        flat: Flat,
        number: int,
        take: Callable[[str, Message], None],
    ) -> None:
        """One exchange in which a failing or late site is an event, never the end of the round."""
        if not members:
            return
        arrays, deadline = wire.record(flat), self.study.rounds.deadline
        messages = {
            name: wire.instruction(m.node_id, self.study, task(name), arrays, deadline) for name, m in members.items()
        }
        answered: set[str] = set()

        def guarded(site: str, reply: Message) -> None:
            answered.add(site)
            try:
                take(site, reply)
            except WireError as error:
                self._events.append("failed", round=number, site=site, why=str(error))

        exchange(self._grid, messages, guarded, deadline)
        for site in members:
            if site not in answered:
                self._events.append("failed", round=number, site=site, why="no answer before the deadline")

    def _weights(self, replies: Sequence[Reply]) -> list[float]:
        if self.study.rounds.weights == "equal":
            return [1.0] * len(replies)
        if self.study.rounds.weights == "patches":
            return [r.metrics["steps"] * self.study.training.batch for r in replies]
        return [r.metrics["num-examples"] for r in replies]
