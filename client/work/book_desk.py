"""The trainer's answers to operators who stop it, or look into its books."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from client.handover.book_operations import AUDIT, EGRESS, PAUSE, UNPAUSE, Known, Lines, Part, Verified, Why
from client.handover.operators import Operations
from client.handover.peer import Caller
from client.work import audit, ledger
from client.work.audit import Entry
from client.work.pause import Paused
from common.errors import AuditError
from common.rpc import Empty

_LAST = 20  # lines that are shown
_BYTES = 16 * 1024 * 1024  # of lines of the ledger in one answer


class BookDesk:
    """Answers for one site.

    Args:
        folder: The trainer's.
        pause: Pauses the site: (who, why).
        unpause: Goes on.
    """

    def __init__(self, folder: Path, pause: Callable[[str, str], Paused], unpause: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._pause, self._unpause = pause, unpause

    def open(self, operations: Operations) -> None:
        """Put what is answered here on the table."""
        operations.on(PAUSE, self._stop)
        operations.on(UNPAUSE, self._go_on)
        operations.on(EGRESS, lambda part, who: left(self._folder, part))
        operations.on(AUDIT, lambda known, who: verified(self._folder, known))

    def _stop(self, asked: Why, who: Caller) -> Paused:
        return self._pause(who.name, asked.why)

    def _go_on(self, asked: Why, who: Caller) -> Empty:
        self._unpause(who.name, asked.why)
        return Empty()


def left(folder: Path, part: Part) -> Lines:
    """A part of the ledger; raises AuditError when a line of it was altered."""
    found, size, seen = list[ledger.Line](), 0, 0
    for seen, (line, _) in enumerate(ledger.lines(folder / ledger.FILE), start=1):
        if seen <= part.after or (part.round is not None and line.round != part.round):
            continue
        found.append(line)
        size += len(line.canonical())
        if len(found) >= part.most or size > _BYTES:
            return Lines(lines=found, seen=seen, end=False)
    return Lines(lines=found, seen=seen, end=True)


def verified(folder: Path, known: Known) -> Verified:
    """What the audit log says of itself, held against the ledger.

    Raises:
        AuditError: Either was altered, or what the one says left is not in the other.
    """
    head = audit.verify(folder / audit.FILE, known.head)
    kept = (digest for _, digest in ledger.lines(folder / ledger.FILE))
    last, replies, strays = deque[Entry](maxlen=_LAST), 0, 0
    for entry, _ in audit.entries(folder / audit.FILE):
        last.append(entry)
        if entry.ledger is None:
            continue
        for digest in kept:
            if digest == entry.ledger:
                break
            strays += 1
        else:
            raise AuditError(
                f"{folder / ledger.FILE}: the line of what left in run {entry.run}, round {entry.round} ({entry.kind}) "
                f"is not there as it was written (audit log, line {entry.number})"
            )
        replies += 1
    return Verified(head=head, last=list(last), left=replies, strays=strays + sum(1 for _ in kept))
