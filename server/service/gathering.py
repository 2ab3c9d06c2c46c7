"""Who takes part in a run of real sites: asked before it begins, and again between rounds where somebody may yet."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flwr.app import Message
from pydantic import TypeAdapter, ValidationError

from common.disk import write_whole
from common.errors import ApprovalWaitingError, CheckpointError, RoundError, StudyError, WireError
from server.channel import Ask
from server.consent import Consent, NotAllowedError
from server.events import Events
from server.exchange import Stopped, exchange
from server.joining import Member, member
from server.sealed import Sealed
from server.service.coordinator import ServerLink

AGAIN = 30.0  # seconds until a site that could not join, or was not there, is asked again
SOON = 5.0  # and one whose people have not decided: it answers at once
BRIEF = 15.0  # seconds that a round waits for the word of sites that may yet take part
PATIENCE = 24 * 3600.0  # seconds to wait for all sites: the first answer comes when a site has prepared its scans
FILE = "members.json"


def kept_members(folder: Path) -> list[Member]:
    """The sites that ever joined the run in `folder`; raises CheckpointError."""
    path = folder / FILE
    try:
        return TypeAdapter(list[Member]).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise CheckpointError(f"{path} is damaged; put it back, or remove the run's folder to start it anew") from None


class Gathering:
    """The sites of one run.

    Args:
        link: The way to the sites.
        channel: How they are asked.
        folder: The run's.
        run: Its name.
        consent: What their people decided.
        events: The run's.
        stop: Set from another thread to leave.
    """

    def __init__(
        self,
        link: ServerLink,
        channel: Sealed,
        folder: Path,
        run: str,
        consent: Consent,
        events: Events,
        stop: threading.Event,
    ) -> None:
        self._link = link
        self._channel = channel
        self._folder = folder
        self._run = run
        self._consent = consent
        self._events = events
        self._stop = stop
        self._told: dict[str, str] = {}

    def members(self, sites: Sequence[str] | None, quorum: float, trains: bool = True) -> list[Member]:
        """The run's sites by name: asked when it begins, then kept in its folder.

        Args:
            sites: Who is wanted; all that are enrolled if none.
            quorum: Share of those who may take part that must be able to train.
            trains: False where nothing is trained: they must be able to judge a model.

        Raises:
            StudyError: A site that is wanted is not enrolled.
            RoundError: Too few joined.
            Stopped: `stop` was set.
        """
        there = self._link.fleet.sites()
        if not (self._folder / FILE).exists():
            wanted = sorted(there if sites is None else sites)
            unknown = sorted(set(wanted) - there.keys())
            if unknown or not wanted:
                raise StudyError(f"not enrolled: {', '.join(unknown) or 'nobody is'}; see: fedscan server site list")
            self._keep(self._joined(wanted, quorum, trains))
        # A node's number is Flower's and dies with its process; who was revoked since has none and is parted with.
        return [Member(**{**asdict(m), "node_id": there.get(m.name, 0)}) for m in kept_members(self._folder)]

    def again(self, sites: Sequence[str], during: int) -> list[Member]:
        """Ask sites that did not take part so far, or not any more; those who do now, which is written down."""
        there, connected = self._link.fleet.sites(), set(self._link.grid.get_node_ids())
        awaited = [site for site in sites if there.get(site) in connected]
        found = self._ask(awaited, awaited, BRIEF, during)
        if found:
            known = {m.name: m for m in kept_members(self._folder)} | found
            self._keep(list(known.values()))
        for name in found:
            self._consent.agreed(name, during)
        return list(found.values())

    def _joined(self, wanted: Sequence[str], quorum: float, trains: bool) -> list[Member]:
        """Ask until all have said how many cases they have or why not, or patience ends and there are enough."""
        members: dict[str, Member] = {}
        start = time.monotonic()
        self._events.append("asked", round=0, what="join", sites=list(wanted), deadline=PATIENCE)
        while missing := [s for s in wanted if s not in members and self._awaited(s)]:
            asked = time.monotonic()
            members |= self._ask(missing, wanted, AGAIN, 0)
            missing = [s for s in missing if s not in members and self._awaited(s)]
            if missing and time.monotonic() - start > PATIENCE:
                break
            undecided = all(self._consent.reason(s) == ApprovalWaitingError.code for s in missing)
            while missing and time.monotonic() < asked + (SOON if undecided else AGAIN):
                if self._stop.wait(0.2):
                    raise Stopped("the run was stopped before all sites had joined")
        for name in members:
            self._consent.agreed(name, 0)
        may = [s for s in wanted if self._consent.trains(s)]
        able = [m for m in members.values() if (m.train if trains else m.validation + m.test)]
        cases = "training cases" if trains else "cases to judge on"
        if len(able) < max(1, quorum * len(may)):
            raise RoundError(
                f"{len(able)} of {len(may)} sites that may take part joined with {cases}"
                + "".join(f"; {s}: {self._consent.why(s)}" for s in wanted if s not in may)
                + "; see fedscan run watch for why"
            )
        return list(members.values())

    def _awaited(self, site: str) -> bool:
        return self._consent.reason(site) in (None, ApprovalWaitingError.code)

    def _ask(self, sites: Sequence[str], roster: Sequence[str], seconds: float, during: int) -> dict[str, Member]:
        nodes = {name: node for name, node in self._link.fleet.sites().items() if name in sites}
        found: dict[str, Member] = {}

        def take(site: str, reply: Message) -> None:
            try:
                joined = member(site, nodes[site], self._channel.received(site, reply))
            except NotAllowedError as error:
                self._consent.refused(site, error.reason, during)
                return
            except WireError as error:
                if self._told.get(site) != str(error):
                    self._told[site] = str(error)
                    self._events.append("failed", round=0, site=site, why=str(error))
                return
            found[site] = joined
            counts = {k: v for k, v in asdict(joined).items() if k not in ("name", "node_id")}
            self._events.append("joined", round=0, site=site, **counts)

        if nodes:
            ask = Ask(self._run, 0, "join", nodes, list(roster))
            exchange(self._link.grid, self._channel.messages(ask), take, lambda: seconds, self._stop)
        return found

    def _keep(self, members: Sequence[Member]) -> None:
        text = json.dumps([asdict(m) for m in sorted(members, key=lambda m: m.name)], indent=1)
        write_whole(self._folder / FILE, lambda part: part.write_text(text, encoding="utf-8"))
