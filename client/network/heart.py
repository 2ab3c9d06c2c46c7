"""Telling the coordinator that this process lives, also while a large object or a long training is under way."""

import logging
import threading
from collections.abc import Callable

from client.network.clock import Clock
from client.network.fleet import HEARTBEAT, Fleet
from client.network.problems import LinkError

log = logging.getLogger("fedscan.link")

_BEAT = HEARTBEAT / 2  # seconds between heartbeats: one may get lost
_BEAT_AGAIN = 1.5  # after one that got lost


class Heart:
    """Beats for one site's link, on a thread of its own.

    Args:
        fleet: The way to the coordinator.
        clock: Tells when it is time.
        node: This process's number there, if it has one now.
        forgotten: Called when the coordinator no longer knows that number.
    """

    def __init__(
        self, fleet: Fleet, clock: Clock, node: Callable[[], int | None], forgotten: Callable[[], None]
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._node = node
        self._forgotten = forgotten

    def start(self, stop: threading.Event) -> None:
        """Beat until `stop` is set."""
        threading.Thread(target=self._run, args=(stop,), daemon=True, name="heart").start()

    def _run(self, stop: threading.Event) -> None:
        pause = _BEAT
        while not self._clock.wait(stop, pause):
            node = self._node()
            pause = _BEAT if node is None else self._beat(node)

    def _beat(self, node: int) -> float:
        """One heartbeat; returns the seconds until the next."""
        try:
            if not self._fleet.heartbeat(node):
                self._forgotten()
        except LinkError as error:
            # What else it may be is seen, and said, by the next question for a task.
            if error.status == 409:
                self._forgotten()
            return _BEAT_AGAIN
        except Exception:
            log.exception("unexpected error")
        return _BEAT
