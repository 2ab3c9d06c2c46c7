"""The answers of a run's sites to one task, where a failing or late site is an event and never the end of the round."""

import threading
import time
from collections.abc import Callable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from common.errors import WireError
from server.channel import Ask, Channel, Received
from server.consent import Consent, NotAllowedError
from server.deadlines import Deadlines
from server.events import Events
from server.exchange import exchange


class Answers:
    """Sends tasks and hears the sites; remembers who was late.

    Args:
        grid: Flower's way to the sites.
        channel: How tasks are written and replies are read.
        events: Where failures are noted.
        consent: Told of the sites that may not do what they are asked.
        deadlines: How long each exchange waits; as long as the task says, or for all, if none.
        stop: Set from another thread to leave.
    """

    def __init__(
        self,
        grid: Grid,
        channel: Channel,
        events: Events,
        consent: Consent,
        deadlines: Deadlines | None,
        stop: threading.Event | None,
    ) -> None:
        self._grid = grid
        self._channel = channel
        self._events = events
        self._consent = consent
        self._deadlines = deadlines
        self._stop = stop
        self._late: set[str] = set()

    def collect(
        self,
        ask: Ask,
        units: Mapping[str, int],
        take: Callable[[str, Received], Mapping[str, float]],
        work: str | None = None,
    ) -> None:
        """Ask and take what comes until all have answered or are late.

        Args:
            ask: The task.
            units: How much work it is for each site: steps or cases.
            take: Told of each reply; returns its metrics; raises WireError to refuse it.
            work: What kind of work it is, by which the deadline is measured; the kind of task if none.

        Raises:
            Stopped: `stop` was set.
        """
        work = work or ask.kind
        if not ask.to:
            return
        open_sites, start = set(ask.to), time.monotonic()

        def guarded(site: str, message: Message) -> None:
            open_sites.discard(site)
            self._late.discard(site)
            try:
                seconds = take(site, self._channel.received(site, message))["seconds"]
            except NotAllowedError as error:
                self._consent.refused(site, error.reason, ask.round)
                return
            except WireError as error:
                self._events.append("failed", round=ask.round, site=site, why=str(error))
                return
            if self._deadlines is not None:
                self._deadlines.answered(work, site, units[site], seconds, time.monotonic() - start)

        def deadline() -> float | None:
            if self._deadlines is None:
                return ask.deadline
            there = set(self._grid.get_node_ids()) if self._late else set()
            awaited = {s: units[s] for s in open_sites if s not in self._late or ask.to[s] in there}
            return self._deadlines.seconds(work, awaited)

        if self._deadlines is not None:
            self._events.append("asked", round=ask.round, what=ask.kind, sites=list(ask.to), deadline=deadline())
        exchange(self._grid, self._channel.messages(ask), guarded, deadline, self._stop)
        for site in ask.to:
            if site in open_sites:
                self._late.add(site)
                self._events.append("failed", round=ask.round, site=site, why="no answer before the deadline")
