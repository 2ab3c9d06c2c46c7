"""What `fedscan site study` does and says."""

from datetime import UTC, datetime, time
from pathlib import Path
from typing import Literal

import click

from client.desk.operator import ask
from client.desk.study_words import as_json, in_full, in_short, line
from client.handover.study_operations import DECIDE, LIST, SHOW, Decide, Shown, Standing, Which
from client.work.approval_record import Purpose
from common.errors import StudyError
from common.rpc import Empty


def show_list(home: Path, json: bool) -> None:
    """Print how every study stands."""
    found = ask(home, LIST, Empty())
    if json:
        click.echo(found.canonical().decode())
        return
    if not found.studies:
        click.echo("no study came to this site yet; one comes when the coordinator starts a run of it")
    for standing in found.studies:
        click.echo(line(standing))
    if found.rule == "signer":
        click.echo("site.yaml lets every study of the coordinator run until somebody says no (approval: rule: signer)")
    if any(s.state == "waiting" for s in found.studies):
        click.echo("look at one that waits: fedscan site study show NAME    then: approve, or reject")


def show_study(home: Path, study: str, json: bool) -> None:
    """Print all that is needed to decide on a study."""
    shown = ask(home, SHOW, Which(study=study))
    click.echo(as_json(shown) if json else in_full(shown))


def approve(
    home: Path, study: str, until: str | None, rounds: int | None, purpose: Purpose, why: str, yes: bool
) -> None:
    """Approve a study, after showing what it is."""
    end = None if until is None else moment(until)
    shown = ask(home, SHOW, Which(study=study))
    digest = shown.standing.approval.study
    if not yes:
        click.echo(in_short(shown))
        click.confirm("Do you approve this study?", abort=True)
    # By its whole digest: a name could mean another study by now.
    asked = Decide(study=digest, what="approve", until=end, rounds=rounds, purpose=purpose, why=why)
    _told(shown, ask(home, DECIDE, asked))


def refuse(home: Path, study: str, what: Literal["reject", "withdraw"], why: str, yes: bool) -> None:
    """Reject a study, or withdraw its approval."""
    shown = ask(home, SHOW, Which(study=study))
    approval = shown.standing.approval
    if not yes:
        doing = "Reject" if what == "reject" else "Withdraw the approval of"
        click.confirm(f"{doing} study {approval.name} ({approval.study[:12]})?", abort=True)
    _told(shown, ask(home, DECIDE, Decide(study=approval.study, what=what, why=why)))


def moment(text: str) -> datetime:
    """A date, up to its end, or a date and time, on this machine's clock; raises StudyError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise StudyError(f"--until {text}: write a date as 2026-12-31, or with a time as 2026-12-31T18:00") from None
    if len(text) <= len("2026-12-31"):
        found = datetime.combine(found.date(), time(23, 59, 59))
    return found.astimezone(UTC)


def _told(shown: Shown, now: Standing) -> None:
    click.echo(line(now))
    what = now.approval.decisions[-1].what
    if what == "approve" and now.state == "waiting":
        click.echo("  a second person must approve it before it runs")
    elif what == "approve":
        click.echo("  it runs as soon as the coordinator asks again")
    elif shown.standing.state == "approved":
        click.echo("  work on it stops with the step in progress, what was kept is removed, the coordinator is told")
        click.echo("  what was sent before cannot be called back")
