"""The site's own brake: from the moment it is pulled nothing leaves, also after a restart, until it is let go.

Replies are written out of the link's reach first. What lets a reply out and what takes all of them back hold the same
lock, so that none slips out between.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, Field

from client.handover.files import COUNTS, REPLY, FileName
from client.handover.mailbox import Mailbox
from client.work.audit import Who
from common.disk import not_written, write_whole
from common.records import Record, RecordError, read_record

log = logging.getLogger("fedscan.trainer")

FILE = "paused.json"
_NAMES: tuple[FileName, ...] = (REPLY, COUNTS)
_BYTES = 4096


class Paused(Record):
    """A pause.

    Attributes:
        since: When it began.
        who: Who asked for it.
        why: In their words.
    """

    since: AwareDatetime
    who: Who
    why: str = Field("", max_length=500)


class Pause:
    """Whether a site is paused; may be used by any thread.

    Args:
        folder: The trainer's.
        mailbox: Where replies wait for the link.
        sift: Called before what is held may leave again: it removes what must not, because its study ended meanwhile.

    Attributes:
        gate: Held by whoever lets a reply out or takes one back.
    """

    def __init__(self, folder: Path, mailbox: Mailbox, sift: Callable[[], object] = lambda: None) -> None:
        self._path = folder / FILE
        self._mailbox = mailbox
        self._sift = sift
        self.gate = threading.Lock()
        self._now = self._read()
        with self.gate:
            self._close() if self._now else self._open()

    @property
    def now(self) -> Paused | None:
        """The pause that holds; none when there is none."""
        return self._now

    def begin(self, who: str, why: str = "") -> Paused:
        """Pause; on return the link can open no reply. A pause that holds already goes on.

        Raises:
            StorageError: It could not be written down; it holds until this process ends.
        """
        with self.gate:
            if self._now is None:
                self._now = Paused(since=datetime.now(UTC).replace(microsecond=0), who=who, why=why)
            self._close()
            text = self._now.canonical()
            write_whole(self._path, lambda part: part.write_bytes(text))
            return self._now

    def end(self) -> None:
        """Go on: what was finished meanwhile, or taken back, may leave now. Raises StorageError."""
        with self.gate:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise not_written(self._path, error) from None
            self._now = None
            self._open()

    def release(self, name: FileName, check: Callable[[], object] = lambda: None) -> bool:
        """Let a reply out, unless the site is paused: then it stays held until the pause ends.

        Args:
            name: Which.
            check: Called before, while nothing else can be let out or taken back; what it raises keeps the reply in.
        """
        with self.gate:
            try:
                check()
            except BaseException:
                self._mailbox.discard(name)
                raise
            return self._now is None and self._mailbox.release(name)

    def _close(self) -> None:
        for name in _NAMES:
            self._mailbox.withhold(name)
        self._tell(paused=True)

    def _open(self) -> None:
        self._sift()
        for name in _NAMES:
            self._mailbox.release(name)
        self._tell(paused=False)

    def _tell(self, paused: bool) -> None:
        try:
            self._mailbox.say_paused(paused)
        except OSError as error:
            log.error("the link cannot be told whether the site is paused: %s", error.strerror)

    def _read(self) -> Paused | None:
        try:
            return read_record(Paused, self._path.read_bytes(), _BYTES)
        except FileNotFoundError:
            return None
        except (RecordError, OSError):
            # That there is one is all that counts.
            log.error("%s is damaged: the site stays paused until fedscan site unpause", self._path.name)
            return Paused(since=datetime.now(UTC).replace(microsecond=0), who="unknown")
