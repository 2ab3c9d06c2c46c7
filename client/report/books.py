"""Approvals, ledger and audit log in words, for people who read no logs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.approval import ApprovalRule
from client.work import audit, ledger
from client.work.approvals import FOLDER, Approvals
from client.work.ledger import Line
from common.errors import AuditError, CheckpointError

RECENT = 40  # lines that are written out; the books have all

_WORDS = {
    "join": "how many cases there are", "train": "the net after training, and what training says of itself",
    "evaluate": "mean scores over all cases", "result": "the word that the final model has arrived",
}  # fmt: skip
_DECISIONS = {"approve": "approved", "reject": "rejected", "withdraw": "withdrew the approval"}


@dataclass(frozen=True)
class StudyLine:
    """One study and what people said of it."""

    name: str
    digest: str
    state: str
    seen: datetime
    said: tuple[str, ...]


@dataclass(frozen=True)
class Left:
    """What left for one run.

    Attributes:
        run: Its name.
        study: The study's.
        updates: How often weights left.
        others: How often numbers alone left.
        errors: How often the answer was an error's code.
        nbytes: Of all of it.
        first: The first time.
        last: The last time.
    """

    run: str
    study: str
    updates: int
    others: int
    errors: int
    nbytes: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Books:
    """What the page says of the site's books.

    Attributes:
        studies: The studies that ever came.
        runs: What left, by run, the last one first.
        recent: The last replies: when, and in words.
        sealed: What the look at the audit log found: a sentence, and whether all is well.
        events: The last events of the audit log: when, who, what.
        wrong: Books that cannot be read, and why.
    """

    studies: tuple[StudyLine, ...]
    runs: tuple[Left, ...]
    recent: tuple[tuple[datetime, str, str], ...]
    sealed: tuple[str, bool]
    events: tuple[tuple[datetime, str, str], ...]
    wrong: tuple[str, ...]


def read_books(trainer: Path, rule: ApprovalRule) -> Books:
    """The books in the trainer's folder; what cannot be read is said, never left out."""
    wrong: list[str] = []
    studies, lines, events = [], [], []
    try:
        studies = _studies(trainer, rule)
    except CheckpointError as error:
        wrong.append(str(error))
    try:
        lines = [line for line, _ in ledger.lines(trainer / ledger.FILE)]
    except AuditError as error:
        wrong.append(str(error))
    sealed = ("nothing yet", True)
    try:
        events = [entry for entry, _ in audit.entries(trainer / audit.FILE)]
        if events:
            sealed = (
                f"All {len(events)} lines follow on one another. Whether the last ones were changed or cut off shows "
                "against a head that was seen elsewhere: fedscan site audit verify.",
                True,
            )
    except AuditError as error:
        sealed = (str(error), False)
    told = tuple((e.time, e.who, _event(e)) for e in reversed(events[-RECENT:]))
    recent = tuple(
        (line.time, f"{line.name}, round {line.round}", in_words(line)) for line in reversed(lines[-RECENT:])
    )
    return Books(tuple(studies), _by_run(lines), recent, sealed, told, tuple(wrong))


def in_words(line: Line) -> str:
    """What one reply held."""
    if line.error is not None:
        return f"no answer, only the code {line.error}"
    said = _WORDS[line.kind]
    if line.kind == "evaluate":
        said += f" kept for {line.part}"
    if line.metrics and line.kind != "result":
        said += ": " + ", ".join(f"{name} {value:.4g}" for name, value in sorted(line.metrics.items()))
    return f"{said} ({size(line.nbytes)})"


def size(nbytes: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} GB"


def _studies(trainer: Path, rule: ApprovalRule) -> list[StudyLine]:
    known = Approvals(trainer / FOLDER, lambda: rule)
    states = known.states(datetime.now(UTC))
    found = []
    for approval in known.all():
        said = []
        for d in approval.decisions:
            limits = (
                f"until {d.until.astimezone():%d %B %Y}" if d.until else "",
                f"for {d.rounds} rounds" if d.rounds else "",
                "for measuring only" if d.purpose == "evaluate" else "",
                f"“{d.why}”" if d.why else "",
            )
            more = "".join(f", {text}" for text in limits if text)
            said.append(f"{d.when.astimezone():%d %B %Y, %H:%M}: {d.who} {_DECISIONS[d.what]}{more}")
        found.append(StudyLine(approval.name, approval.study[:12], states[approval.study], approval.seen, tuple(said)))
    return found


def _by_run(lines: Sequence[Line]) -> tuple[Left, ...]:
    runs: dict[str, list[Line]] = {}
    for line in lines:
        runs.setdefault(line.run, []).append(line)
    found = [
        Left(
            run, some[0].name, sum(bool(s.arrays) for s in some),
            sum(not s.arrays and s.error is None for s in some), sum(s.error is not None for s in some),
            sum(s.nbytes for s in some), some[0].time, some[-1].time,
        )
        for run, some in runs.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda r: r.last, reverse=True))


def _event(entry: audit.Entry) -> str:
    about = [entry.kind, entry.round is not None and f"round {entry.round}", entry.run, entry.code, entry.reason,
             entry.times and f"{entry.times} times", entry.why and f"“{entry.why}”"]  # fmt: skip
    return ": ".join([entry.event, ", ".join(str(word) for word in about if word)]).removesuffix(": ")
