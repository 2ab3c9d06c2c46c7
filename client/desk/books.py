"""What `fedscan site egress show` and `fedscan site audit verify` do and say."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import ValidationError

from client.desk.operator import RefusedError, ask
from client.handover.book_operations import AUDIT, EGRESS, Known, Lines, Part, Verified
from client.work.audit import Entry
from client.work.book_desk import left, verified
from client.work.ledger import Line
from common.errors import AuditError, StudyError
from common.manifests import AuditHead


def show_egress(home: Path, number: int | None, as_json: bool) -> None:
    """Print what left, a line each.

    Args:
        home: The site's folder.
        number: Of this round alone.
        as_json: For scripts: the ledger's own lines.

    Raises:
        AuditError: The ledger was altered.
        FedscanError: It cannot be read by this user, and no trainer answers.
    """
    any_left = False
    for line in _lines(home, number):
        any_left = True
        click.echo(line.canonical().decode() if as_json else "\n".join(in_words(line)))
    if not any_left and not as_json:
        where = "yet" if number is None else f"in round {number}"
        click.echo(f"no answer to a task left {where}; that one was refused is said by: fedscan site audit verify")


def in_words(line: Line) -> list[str]:
    """A line of the ledger for people."""
    part = f" ({line.part} cases)" if line.kind == "evaluate" else ""
    head = f"{line.time.astimezone():%Y-%m-%d %H:%M:%S}  {line.name}, round {line.round}, {line.kind}{part}"
    where = f"    run {line.run}, study {line.study[:12]}, to coordinator {line.to[:12]}"
    if line.error is not None:
        return [head, where, f"    no answer: {line.error}"]
    told = [head, where, f"    {line.nbytes} bytes"]
    for dtype, array in line.arrays.items():
        told.append(f"    {array.elements} numbers ({dtype}), SHA-256 {array.digest}")
    if line.norm is not None:
        told.append(f"    {line.tensors} tensors of the net, changed by {line.norm:.6g} (L2 norm)")
    if line.metrics:
        told.append("    " + ", ".join(f"{name} {value:g}" for name, value in sorted(line.metrics.items())))
    if line.kept is not None:
        told.append(f"    a copy is in trainer/sent/{line.kept}")
    return told


def verify_audit(home: Path, head: str | None, length: int | None, as_json: bool) -> bool:
    """Print whether the audit log is whole, and its last lines.

    Args:
        home: The site's folder.
        head: What the coordinator, or an earlier look, says was the head.
        length: After how many lines.
        as_json: For scripts.

    Raises:
        StudyError: No log can have had that head.
    """
    known = Known()
    if head is not None and length is not None:
        try:
            known = Known(head=AuditHead(head=head, length=length))
        except ValidationError:
            raise StudyError("--head is 64 digits (0-9, a-f), all of them; --length is a number of lines") from None
    try:
        found = verified(home / "trainer", known) if _mine(home) else ask(home, AUDIT, known)
    except (AuditError, RefusedError) as error:
        if isinstance(error, RefusedError) and error.reason != AuditError.code:
            raise
        click.echo(json.dumps({"whole": False, "why": str(error)}) if as_json else f"not whole: {error}")
        return False
    if as_json:
        click.echo(json.dumps({"whole": True, **found.model_dump(mode="json", exclude_none=True)}))
    else:
        _say(found, known)
    return True


def _say(found: Verified, known: Known) -> None:
    for entry in found.last:
        click.echo(_event(entry))
    click.echo(f"whole: {found.head.length} lines, {found.left} replies, each as the ledger has it")
    if found.strays:
        lines = "1 line" if found.strays == 1 else f"{found.strays} lines"
        click.echo(f"  and {lines} of the ledger of which the log says nothing: the trainer died before that could")
        click.echo("  leave, or somebody else wrote it")
    click.echo(f"  head {found.head.head}")
    if known.head is None:
        click.echo(
            "  A cut end shows against a head that was seen elsewhere: this one, written down, or the one of the"
        )
        click.echo("  last reply (at the coordinator: fedscan server site list --json); add: --head HASH --length N")


def _event(entry: Entry) -> str:
    number = None if entry.round is None else f"round {entry.round}"
    about = [entry.kind, number, entry.run, entry.code, entry.reason, entry.study and f"study {entry.study[:12]}",
             entry.times and f"{entry.times} times", entry.why]  # fmt: skip
    said = ", ".join(str(word) for word in about if word)
    return f"{entry.number:>6}  {entry.time.astimezone():%Y-%m-%d %H:%M:%S}  {entry.who:<9} {entry.event:<10} {said}"


def _lines(home: Path, number: int | None) -> Iterator[Line]:
    after = 0
    while True:
        part = Part(round=number, after=after)
        found: Lines = left(home / "trainer", part) if _mine(home) else ask(home, EGRESS, part)
        yield from found.lines
        if found.end:
            return
        after = found.seen


def _mine(home: Path) -> bool:
    """Whether this user may read the books without the trainer's help."""
    return os.access(home / "trainer", os.R_OK | os.X_OK)
