"""How tasks are written and replies are read within one machine; server/sealed.py does it between real sites."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import ArrayRecord, Message

from common import wire
from common.figures import Figures
from common.manifests import TaskKind
from common.section import Part
from common.study import Study
from common.uplink import Uplink
from common.wire import Flat, Task, Terms


@dataclass(frozen=True)
class Ask:
    """One task for several sites.

    Attributes:
        run: The run's name.
        round: Its round.
        kind: What is asked.
        to: The node of each site that is asked now; those of the roster whose reply is there are not asked again.
        roster: The sites that the task is for.
        flat: The weights that go with it; none for `join`.
        part: The cases that are meant.
        acknowledged: The last counted round of each site.
        replies: Hash of each site's last counted reply, where replies have one.
        best: The round with the best validation so far, 0 for none.
        terms: The strategy's client half.
        deadline: Seconds.
        figures: What the study found; with its result only.
    """

    run: str
    round: int
    kind: TaskKind
    to: Mapping[str, int]
    roster: Sequence[str]
    flat: Flat | None = None
    part: Part = "train"
    acknowledged: Mapping[str, int] = field(default_factory=dict)
    replies: Mapping[str, str] = field(default_factory=dict)
    best: int = 0
    terms: Terms = field(default_factory=Terms)
    deadline: float | None = None
    figures: Figures | None = None

    def arrays(self) -> ArrayRecord | None:
        """The weights as Flower's record, one for all messages."""
        return None if self.flat is None else wire.record(self.flat)


@dataclass(frozen=True)
class Received:
    """A site's reply; its parts are checked as they are read.

    Attributes:
        message: As it came.
        digest: Hash by which a later task names the reply; none where replies are not signed.
    """

    message: Message
    digest: str | None = None

    def metrics(self, keys: frozenset[str], limits: Mapping[str, float]) -> dict[str, float]:
        """The reply's numbers; raises WireError unless they are exactly `keys`, finite and within limits."""
        return wire.read_metrics(self.message, keys, limits)

    def arrays(self, uplink: Uplink) -> Flat:
        """The reply's arrays; raises WireError unless they are exactly what a reply holds (`Uplink.read`)."""
        return uplink.read(self.message)


class Channel(Protocol):
    """The coordinator's side of the messages of one run."""

    def messages(self, ask: Ask) -> dict[str, Message]:
        """The message for each site that is asked."""

    def received(self, site: str, reply: Message) -> Received:
        """The reply of `site` to the last task; raises WireError when it is not its word."""

    def gone(self, sites: Collection[str]) -> set[str]:
        """Those of `sites` that will never answer again."""


class Plain:
    """Messages within one machine: nothing is signed, nobody leaves.

    Args:
        study: The study, which goes with every task.
    """

    def __init__(self, study: Study) -> None:
        self._study = study

    def messages(self, ask: Ask) -> dict[str, Message]:
        """The message for each site that is asked."""
        arrays = ask.arrays()
        return {
            site: wire.instruction(node, self._study, self._task(ask, site), arrays, ask.deadline)
            for site, node in ask.to.items()
        }

    def received(self, site: str, reply: Message) -> Received:
        """The reply as it is."""
        return Received(reply)

    def gone(self, sites: Collection[str]) -> set[str]:
        """Nobody."""
        return set()

    def _task(self, ask: Ask, site: str) -> Task:
        return Task(
            run=ask.run, round=ask.round, kind=ask.kind, part=ask.part, acknowledged=ask.acknowledged.get(site, 0),
            best=ask.best, terms=ask.terms,
        )  # fmt: skip
