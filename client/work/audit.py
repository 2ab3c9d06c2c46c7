"""What happened at this site and who did it: lines of which none can be changed, cut out or moved unseen.

Each line holds the hash of the one before (a hash chain), and the head, the hash of the last line, goes with every
signed reply to the coordinator. So an edit anywhere breaks the chain, and a tail that was cut shows against a head that
is known elsewhere. Nothing of a patient stands here: what a line may hold is the closed list of `Entry`.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from client.work.journal import append_line, mend
from common.errors import AuditError, StorageError
from common.manifests import AuditHead, RoundManifest
from common.records import Record, RecordError, RunName, Sha256, canonical_json, read_canonical

log = logging.getLogger("fedscan.trainer")

FILE = "audit.jsonl"
TRAINER = "trainer"
MAX_LINE = 16 * 1024
_START = sha256(b"fedscan audit\0").hexdigest()
_FIRST, _MOST = 60.0, 3600.0  # seconds in which refusals for the same reason are only counted: at first, and at most

Event = Literal[
    "begun", "torn", "started", "stopped", "settings",
    "waiting", "approved", "rejected", "withdrawn", "expired",
    "accepted", "refused", "sent", "sent again", "failed",
    "paused", "unpaused", "stranger",
]  # fmt: skip
# What an operator says of a study, and how it is called here.
SAID: dict[str, Event] = {"approve": "approved", "reject": "rejected", "withdraw": "withdrawn"}
Who = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.$-]{1,64}$")]
Code = Annotated[str, Field(pattern=r"^E_[A-Z_]{1,30}$")]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z -]{0,40}$")]


class Entry(Record):
    """One line.

    Attributes:
        number: Of the line, from 1.
        previous: Hash of the line before.
        time: When.
        who: A user of this machine, as the operators' socket saw them, or `trainer`.
        event: What happened.
        salt: In the first line: random, so that nobody can guess what a head stands for.
        study: Digest of the study that it is about.
        run: Its run.
        round: Its round.
        kind: What was asked.
        part: On which cases.
        code: Why not, a code of `common.errors`.
        reason: Which of several reasons of that code, a word of ours.
        times: How often, where the same was counted before it was written down.
        ledger: SHA-256 of the line of the ledger that says what left.
        settings: SHA-256 of the settings of site.yaml that say what may happen here.
        until: How long it holds.
        rounds: For how many rounds it holds.
        why: An operator's own words. They stay here: only a hash of the line ever leaves.
    """

    number: int = Field(ge=1)
    previous: Sha256
    time: AwareDatetime
    who: Who
    event: Event
    salt: Sha256 | None = None
    study: Sha256 | None = None
    run: RunName | None = None
    round: int | None = Field(None, ge=0)
    kind: Word | None = None
    part: Word | None = None
    code: Code | None = None
    reason: Word | None = None
    times: int | None = Field(None, ge=1)
    ledger: Sha256 | None = None
    settings: Sha256 | None = None
    until: AwareDatetime | None = None
    rounds: int | None = Field(None, ge=0)
    why: str | None = Field(None, max_length=500)

    def canonical(self) -> bytes:
        """Its one spelling; what it does not say is left out."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))


def about(manifest: RoundManifest) -> dict[str, Any]:
    """What a line says of a task."""
    return {"study": manifest.study, "run": manifest.run, "round": manifest.round, "kind": manifest.kind,
            "part": manifest.part}  # fmt: skip


def line_hash(line: bytes) -> str:
    """The head after a line, given without its line feed."""
    return sha256(b"fedscan audit line\0" + line).hexdigest()


def entries(path: Path) -> Iterator[tuple[Entry, str]]:
    """Each line with the head after it, checked against the one before; nothing of a file that is not there.

    Raises:
        AuditError: Naming the first line that is not what was written.
    """
    previous, number = _START, 0
    if not path.exists():
        return
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            if not raw.endswith(b"\n"):
                raise AuditError(f"{path}, line {number}: it is too long, or was cut in the middle")
            line = raw[:-1]
            try:
                entry = read_canonical(Entry, line, MAX_LINE)
            except RecordError as error:
                raise AuditError(f"{path}, line {number}: it was altered: it {error}") from None
            if entry.number != number or entry.previous != previous or (entry.event == "begun") != (number == 1):
                raise AuditError(
                    f"{path}, line {number}: it does not follow on the line before: one of the two was altered, or "
                    "lines were cut out, added or moved"
                )
            previous = line_hash(line)
            yield entry, previous


def verify(path: Path, known: AuditHead | None = None) -> AuditHead:
    """The head of the log in `path`, when every line follows on the one before.

    Args:
        path: The log.
        known: A head that was seen elsewhere, as in a reply: the log must hold so many lines, and that hash then.

    Raises:
        AuditError: Naming the first line that is not what was written, or that the log lost lines since.
    """
    head, seen = AuditHead(head=_START, length=0), None
    for entry, now in entries(path):
        head = AuditHead(head=now, length=entry.number)
        if known is not None and entry.number == known.length:
            seen = now
    if known is not None and known.length > head.length:
        raise AuditError(f"{path} has {head.length} lines, but had {known.length} before: its end was cut off")
    if known is not None and known.length and seen != known.head:
        raise AuditError(f"{path}, line {known.length} or before: this is not the log that had the head {known.head}")
    return head


class Audit:
    """The log of one site, to be written by its trainer alone; may be used by any thread.

    Args:
        path: The file. A line that a crash tore in its middle is cut off, and that is written down.
        clock: Seconds that pass.

    Raises:
        AuditError: The file was altered. It must be looked at, and put aside, before the site goes on.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._quiet: dict[tuple[str, str], tuple[float, float, int]] = {}
        torn = mend(path, MAX_LINE)
        try:
            self._head = verify(path)
        except AuditError as error:
            raise AuditError(
                f"{error}. Keep the file for those who look into it, under another name (mv); a new log begins then, "
                "and the coordinator is told that it does"
            ) from None
        if not self._head.length:
            self.append("begun", salt=secrets.token_hex(32))
        if torn:
            self.append("torn")

    @property
    def head(self) -> AuditHead:
        """Hash of the last line, and how many there are."""
        return self._head

    def append(self, event: Event, who: str = TRAINER, **details: Any) -> AuditHead:
        """Write a line; it is on the disk on return. Returns the head after it; raises StorageError."""
        with self._lock:
            number, now = self._head.length + 1, datetime.now(UTC).replace(microsecond=0)
            entry = Entry(number=number, previous=self._head.head, time=now, who=who, event=event, **details)
            line = entry.canonical()
            append_line(self._path, line)
            self._head = AuditHead(head=line_hash(line), length=number)
            return self._head

    def refused(self, code: str, reason: str | None = None, event: Event = "refused", **details: Any) -> None:
        """Write down a refusal; as `noted`."""
        self.noted(event, code=code, reason=reason, **details)

    def noted(self, event: Event, code: str | None = None, reason: str | None = None, **details: Any) -> None:
        """Write down what others bring about, so that whoever does it again and again does not fill the disk.

        The same event for the same reason is only counted for a minute; the count is written with the next line, and
        the minute doubles each time, up to an hour. A full disk is logged: what is refused stays refused.
        """
        key, now = (event, f"{code} {reason}"), self._clock()
        with self._lock:
            end, pause, times = self._quiet.get(key, (-1.0, _FIRST / 2, 0))
            if now < end:
                self._quiet[key] = (end, pause, times + 1)
                return
            pause = _FIRST if now > end + _MOST else min(2 * pause, _MOST)
            self._quiet[key] = (now + pause, pause, 0)
        try:
            self.append(event, code=code, reason=reason, times=times + 1 if times else None, **details)
        except StorageError as error:
            log.error("the audit log: %s", error)
