"""Seeing within a moment that the people of the site have stopped everything, also while a reply is leaving."""

import logging
import threading
from collections.abc import Callable

from client.handover.mailbox import Mailbox
from client.network.fleet import Fleet
from client.network.standing import Standing

log = logging.getLogger("fedscan.link")

_LOOK = 0.05  # seconds between two looks at whether the site is paused


class Brake:
    """Shuts one site's way out while the site is paused, on a thread of its own.

    Args:
        mailbox: Tells whether the site is paused.
        fleet: The way out.
        standing: Tells the people of the site.
        released: Called when the site goes on.
    """

    def __init__(self, mailbox: Mailbox, fleet: Fleet, standing: Standing, released: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._fleet = fleet
        self._standing = standing
        self._released = released
        self._on = threading.Event()

    @property
    def on(self) -> bool:
        """Whether nothing may leave now."""
        return self._on.is_set()

    def start(self, stop: threading.Event) -> None:
        """Look once now, then again and again until `stop` is set."""
        self._look()
        threading.Thread(target=self._run, args=(stop,), daemon=True, name="brake").start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_LOOK):
            self._look()

    def _look(self) -> None:
        paused = self._mailbox.paused
        if paused == self.on:
            return
        if paused:
            self._on.set()
            self._fleet.shut(True)
            log.warning("the site is paused: nothing leaves")
        else:
            self._fleet.shut(False)
            self._on.clear()
            log.info("the site goes on")
            self._released()
        self._standing.paused = paused
        self._standing.write()
