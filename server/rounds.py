"""The rounds of a run: ask the sites to train, fold their replies, let them validate, checkpoint; then test."""

import common.quiet  # noqa: F401

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.serverapp import Grid

from common import wire
from common.errors import RoundError, WireError
from common.names import STRATEGIES
from common.section import Part
from common.start import first_weights
from common.study import Study
from common.uplink import Uplink
from common.wire import Flat, Schema
from server.answers import Answers
from server.channel import Ask, Channel, Plain, Received
from server.checkpoint import Checkpoints, State
from server.consent import Consent
from server.deadlines import Deadlines
from server.events import Event, Events, read_events
from server.joining import MOST, Member
from server.measured import Said, best_after
from server.model import write_model
from server.spool import Reply, Spool
from server.strategies.base import Fold, Strategy


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
        channel: How tasks are written and replies are read; plain if none.
        deadlines: How long each exchange waits; as long as the study says, or for all, if none.
        stop: Set from another thread to leave the run; it can be gone on with.
        consent: Which sites may take part; all if none.
        again: Asks sites, in a round, whether they take part now; those who do.
        start: The file of the study's `start`; a run that has a checkpoint does not need it any more.
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
        channel: Channel | None = None,
        deadlines: Deadlines | None = None,
        stop: threading.Event | None = None,
        consent: Consent | None = None,
        again: Callable[[Sequence[str], int], Sequence[Member]] = lambda sites, during: (),
        start: Path | None = None,
    ) -> None:
        self.study = study
        self.folder = folder
        self._train = {m.name: m for m in train}
        self._test = {m.name: m for m in test}
        self._validate_on = {m.name: m for m in (train if validate is None else validate)}
        self._schema = Schema.of(study)
        self._uplink = Uplink.of(study, self._schema)
        self._strategy: Strategy = STRATEGIES.get(study.strategy.name)(**study.strategy.options)
        self._checkpoints = Checkpoints(folder / "checkpoints", study.digest(), self._schema)
        self._spool = Spool(folder / "spool", self._schema)
        self._events = Events(folder / "events.jsonl", listener)
        self._channel = channel or Plain(study)
        self._memory: dict[str, Flat] = {}
        self._consent = consent or Consent(folder / "consent.json", self._events)
        self._answers = Answers(grid, self._channel, self._events, self._consent, deadlines, stop)
        self._again = again
        self._start = start

    def start(self) -> State:
        """Run all rounds and the final test, or what is left of them.

        Raises:
            RoundError: The quorum was missed.
            ModelError: The study's `start` is not the file, or does not fit.
            Stopped: `stop` was set.
        """
        state, flat = self._begin()
        mark = time.monotonic()
        while state.round < self.study.rounds.number:
            flat = self._round(state, flat)
            now = time.monotonic()
            state.seconds, mark = state.seconds + now - mark, now
            self._checkpoints.write(state, flat, self._memory)
            self._spool.clear()
            self._counted(state)
        if not state.finished:
            if not self.study.trains:
                self._validate_start(state, flat)
            self._final_test(state)
            if not self.study.trains:
                self._check_judged()
            state.seconds += time.monotonic() - mark
            state.finished = True
            self._checkpoints.write(state)
        # A crash between that checkpoint and this event must lose neither the model nor the event.
        events = read_events(self._events.path)
        if [e["event"] for e in events[-1:]] != ["finished"]:
            write_model(self.folder, self.study, state, self._checkpoints, events)
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
                said = (e["round"] for e in read_events(self._events.path) if e["event"] == "checkpoint")
                if max(said, default=0) < state.round:
                    self._counted(state)  # killed between the checkpoint and this event
            self._memory = self._checkpoints.memory(state)
            return state, self._checkpoints.weights(state.round)
        self._memory = {}
        state = State(self.study.digest())
        flat = first_weights(self.study, self._schema, self._start)
        self._events.append(
            "started",
            digest=state.digest,
            sites=list(self._train),
            rounds=self.study.rounds.number,
            bytes=self._schema.nbytes,
        )
        self._checkpoints.write(state, flat)
        return state, flat

    def _counted(self, state: State) -> None:
        self._events.append("checkpoint", round=state.round, best_round=state.best_round)

    def _round(self, state: State, flat: Flat) -> Flat:
        """One round; `state` is brought up to date and the new global weights are returned."""
        number = state.round + 1
        self._part_with_the_gone(number)
        self._ask_again(number)
        replies = self._collect(number, state, flat)
        may = self._participants(number)
        needed = max(1, math.ceil(self.study.rounds.quorum * len(may) - 1e-9))
        if len(replies) < needed:
            self._events.append("stopped", round=number, replies=len(replies), needed=needed)
            raise RoundError(
                f"{self.folder.name}, round {number}: {len(replies)} of {len(may)} sites sent a usable update, "
                f"{needed} are needed (rounds.quorum); {self._events.path} says why each failed. What is done is kept: "
                f"go on with fedscan run resume {self.folder.name}, in a simulation with --resume"
            )
        self._spool.close(number, [r.site for r in replies])
        base = flat
        flat = self._strategy.fold(
            Fold(self.study, self._schema, replies, self._weights(replies), flat, number, self._memory)
        )
        for place in self._schema.places("frozen"):
            flat["float32"][place] = base["float32"][place]  # whatever a strategy does with what nobody trained
        if not all(np.isfinite(values).all() for values in flat.values()):
            raise RoundError(
                f"{self.folder.name}, round {number}: {self.study.strategy.name} made numbers of the updates that are "
                "not finite. The rounds before are kept; begin a new run with another strategy or other options of it"
            )
        state.round = number
        state.acknowledged |= {r.site: number for r in replies}
        state.replies |= {r.site: r.digest for r in replies if r.digest}
        self._events.append("folded", round=number, sites=[r.site for r in replies])
        if number % self.study.evaluation.every == 0 or number == self.study.rounds.number:
            said = self._validate(state, flat)
            if said is not None:
                state.best_round, state.best_metric = best_after(number, said, state, self._events.path)
        return flat

    def _allowed(self, members: Mapping[str, Member]) -> dict[str, Member]:
        """Those of `members` whose people let them train."""
        return {name: m for name, m in members.items() if self._consent.trains(name)}

    def _participants(self, number: int) -> tuple[str, ...]:
        """Those who train in this round, in roster order."""
        roster = tuple(self._allowed(self._train))
        chosen = set(self._strategy.participants(number, roster))
        return tuple(site for site in roster if site in chosen)

    def _ask_again(self, number: int) -> None:
        """Who may take part by now does so from this round on."""
        found = self._again(sites, number) if (sites := self._consent.open()) else ()
        for members in (self._train, self._test, self._validate_on) if found else ():
            joined = {m.name: m for m in found if m.train or members is self._test}
            ordered = sorted({**members, **joined}.items())
            members.clear()
            members.update(ordered)

    def _part_with_the_gone(self, number: int) -> None:
        for site in sorted(self._channel.gone({*self._train, *self._test, *self._validate_on})):
            for members in (self._train, self._test, self._validate_on):
                members.pop(site, None)
            self._events.append("left", round=number, site=site)

    def _collect(self, number: int, state: State, flat: Flat) -> list[Reply]:
        """The updates of a round in roster order; asks all sites whose update is not in the spool yet."""
        roster = self._participants(number)
        closed = self._spool.closed(number)
        there = set()
        for reply in self._spool.replies(number, closed or roster):
            # Spooled by a process that was killed; the event may not have been written, and `resumed` undid it anyway.
            there.add(reply.site)
            self._trained(number, reply.site, reply.metrics)
        if closed is not None:
            return self._spool.replies(number, closed)

        def take(site: str, reply: Received) -> Mapping[str, float]:
            # No site may claim more cases than it joined with, and so a larger say.
            limits = {"num-examples": self._train[site].train, "steps": self._train[site].steps, "seconds": MOST}
            metrics = reply.metrics(wire.train_metric_keys(self.study), limits)
            if metrics["num-examples"] < 1:
                raise WireError("the update was computed on no case")
            if metrics["steps"] < 1 or metrics["steps"] % 1:
                raise WireError(f"the update was computed in {metrics['steps']:g} steps")
            update = self._uplink.decode(reply.arrays(self._uplink), flat)
            if (fault := self._schema.fault(update)) is not None:
                raise WireError(fault)
            self._spool.add(number, site, update, metrics, reply.digest)
            self._trained(number, site, metrics)
            return metrics

        ask = self._ask_of(
            "train", number, {n: self._train[n] for n in roster if n not in there}, roster, state, flat,
            best=state.best_round, terms=self._strategy.terms(number),
        )  # fmt: skip
        self._answers.collect(ask, {name: m.steps for name, m in self._train.items()}, take)
        return self._spool.replies(number, roster)

    def _trained(self, number: int, site: str, metrics: Mapping[str, float]) -> None:
        self._events.append("trained", round=number, site=site, bytes=self._uplink.nbytes, **metrics)

    def _validate(self, state: State, flat: Flat) -> Said | None:
        """The validation Dice of each site; None unless all that may and have validation cases answered.

        A mean over fewer sites is no measure: without its hardest site every round looks better.
        """
        said = self._evaluate(flat, self._validate_on, state.round, "validation", state)
        asked = [n for n, m in self._validate_on.items() if m.validation > 0 and self._consent.measures(n)]
        return said if asked and set(asked) == said.keys() else None

    def _validate_start(self, state: State, flat: Flat) -> None:
        """Validate the model with which a study begins that trains nothing: each site once, and before its test.

        Once the test began, no site that has test cases would take the older task.
        """
        events = read_events(self._events.path)
        judged = {e["site"] for e in events if e["event"] == "evaluated" and e["part"] == "validation"}
        begun = any(e["event"] == "checkpoint" for e in events)
        still = {n: m for n, m in self._validate_on.items() if n not in judged and not (begun and m.test)}
        self._evaluate(flat, still, 0, "validation", state)
        if not begun:
            self._counted(state)

    def _check_judged(self) -> None:
        """Hold the answers of a study that trains nothing against its quorum; raises RoundError."""
        may = [n for n, m in self._test.items() if m.validation + m.test and self._consent.measures(n)]
        judged = {e["site"] for e in read_events(self._events.path) if e["event"] == "evaluated"}
        needed = max(1, math.ceil(self.study.rounds.quorum * len(may) - 1e-9))
        if len(judged) < needed:
            self._events.append("stopped", round=0, replies=len(judged), needed=needed)
            raise RoundError(
                f"{self.folder.name}: {len(judged)} of {len(may)} sites judged the model, {needed} are needed "
                f"(rounds.quorum); {self._events.path} says why each failed. Go on with fedscan run resume "
                f"{self.folder.name}, in a simulation with --resume"
            )

    def _final_test(self, state: State) -> None:
        chosen = state.best_round or state.round
        self._evaluate(self._checkpoints.weights(chosen), self._test, chosen, "test", state)

    def _evaluate(self, flat: Flat, members: Mapping[str, Member], number: int, part: Part, state: State) -> Said:
        """Mean Dice of each site that answered, in roster order."""
        said: dict[str, float | None] = {}
        limits = wire.evaluate_metric_limits(self.study, part, MOST)

        def take(site: str, reply: Received) -> Mapping[str, float]:
            metrics = reply.metrics(frozenset(limits), limits)
            said[site] = metrics["dice"] if metrics["num-examples"] > 0 else None
            self._events.append("evaluated", round=number, part=part, site=site, **metrics)
            return metrics

        having = {n: m for n, m in members.items() if getattr(m, part) > 0 and self._consent.measures(n)}
        ask = self._ask_of("evaluate", number, having, tuple(having), state, flat, part=part)
        cases = {name: getattr(m, part) for name, m in having.items()}
        own = self.study.evaluation.own if part == "test" else None
        if own is None:
            self._answers.collect(ask, cases, take)
        else:
            # The test is then mostly training, of which validations tell nothing.
            alone = self.study.rounds.number if own.local else 0
            steps = {name: own.finetune + alone * m.steps for name, m in having.items()}
            self._answers.collect(ask, {name: cases[name] + steps[name] for name in having}, take, "choice")
        return {name: said[name] for name in having if name in said}

    def _ask_of(
        self,
        kind: Literal["train", "evaluate"],
        number: int,
        to: Mapping[str, Member],
        roster: Sequence[str],
        state: State,
        flat: Flat,
        **rest: Any,
    ) -> Ask:
        return Ask(
            self.folder.name, number, kind, {name: m.node_id for name, m in to.items()}, roster, flat,
            acknowledged=state.acknowledged, replies=state.replies, deadline=self.study.rounds.deadline, **rest,
        )  # fmt: skip

    def _weights(self, replies: Sequence[Reply]) -> list[float]:
        if self.study.rounds.weights == "equal":
            return [1.0] * len(replies)
        if self.study.rounds.weights == "patches":
            return [r.metrics["steps"] * self.study.training.batch for r in replies]
        return [r.metrics["num-examples"] for r in replies]
