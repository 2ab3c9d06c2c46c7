"""When a site does not work: its people's pause, its hours, too little room on its disk."""

import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from client.handover.control import TrainerBusyError
from client.handover.files import FileName, Ref
from client.handover.mailbox import Mailbox
from client.hours import open_at
from client.site import SiteConfig, site_of_home
from client.work.audit import Audit
from client.work.pause import Pause, Paused
from common.errors import StorageError, StudyError

log = logging.getLogger("fedscan.trainer")


class Brakes:
    """What holds the work of one site up; may be used by any thread.

    Args:
        home: The site's folder.
        mailbox: Where replies wait for the link.
        audit: Told of each pause, and of each change of the settings.
        sift: As `Pause` takes it.
        changed: Called when a pause began.
    """

    def __init__(
        self, home: Path, mailbox: Mailbox, audit: Audit, sift: Callable[[], object], changed: Callable[[], object]
    ) -> None:
        self._home = home
        self._audit = audit
        self._changed = changed
        self._pause = Pause(home / "trainer", mailbox, sift)
        self._permits = ""  # hash of the settings that say what may happen here, as they were seen last
        self._windows: tuple[str, ...] = ()
        self._put_off: Ref | None = None  # a task that waits for its hours

    @property
    def paused(self) -> Paused | None:
        """The pause that holds; none when there is none."""
        return self._pause.now

    @property
    def awaited_hours(self) -> tuple[str, ...]:
        """The hours, outside of them; nothing while they are on, or where there are none."""
        return () if open_at(self._windows, datetime.now()) else self._windows

    @property
    def hold(self) -> bool:
        """Whether work that goes on is to stop after its step."""
        return self._pause.now is not None or not open_at(self._windows, datetime.now())

    @property
    def gate(self) -> threading.Lock:
        """Held by whoever lets a reply out or takes one back."""
        return self._pause.gate

    def release(self, name: FileName, check: Callable[[], object] = lambda: None) -> bool:
        """Let a reply out, as `Pause.release` does."""
        return self._pause.release(name, check)

    def pause(self, who: str, why: str = "") -> Paused:
        """Stop the work at the end of its step or case; on return the link can open no reply any more.

        Args:
            who: Who asks for it.
            why: In their words.

        Raises:
            StorageError: It holds, but could not be written down.
        """
        new = self._pause.now is None
        try:
            paused = self._pause.begin(who, why)
        finally:
            self._changed()
        if new:
            self._audit.append("paused", who=who, why=why or None)
            log.info("paused by %s", who)
        return paused

    def unpause(self, who: str, why: str = "") -> None:
        """Go on where the work stood; raises StorageError."""
        if self._pause.now is not None:
            self._audit.append("unpaused", who=who, why=why or None)
            log.info("unpaused by %s", who)
        self._pause.end()

    def check_now(self, ref: Ref) -> None:
        """Raises TrainerBusyError where nothing may be worked on now; the task is not looked at."""
        if self._pause.now is not None:
            raise TrainerBusyError("the site is paused")
        if ref != self._put_off:
            return
        with suppress(StudyError):  # said when the task is read
            self._windows = site_of_home(self._home).hours
        self._check_hours(self._windows)

    def check_machine(self, ref: Ref, config: SiteConfig) -> None:
        """Raises TrainerBusyError outside the site's hours, StorageError where the disk has less than it wants."""
        self._put_off = ref
        self._check_hours(config.hours)
        self._put_off = None
        free, wanted = shutil.disk_usage(self._home).free / 1e9, config.limits.disk
        if free < wanted:
            raise StorageError(
                f"{self._home}: {free:.1f} GB are free, {wanted:g} must stay free (site.yaml: limits: disk). Make "
                "room: the task comes again"
            )

    def seen(self, config: SiteConfig, event: Literal["started", "settings"] = "settings") -> None:
        """Write down which settings hold, when they are other ones than before; raises StorageError."""
        permits, self._windows = sha256(config.permits()).hexdigest(), config.hours
        if permits != self._permits:
            self._permits = permits
            self._audit.append(event, settings=permits)

    @staticmethod
    def _check_hours(windows: tuple[str, ...]) -> None:
        if not open_at(windows, datetime.now()):
            raise TrainerBusyError("it is not the time to work (site.yaml: hours)")
