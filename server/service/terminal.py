"""What the server and its runs look like in a terminal."""

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.enrolment.desk import RENEW_BEFORE
from server.report.sentences import number
from server.service.control import RunState, ServerStatus

COLOURS = {"running": "green", "finished": "green", "failed": "red", "aborted": "yellow", "queued": "cyan",
           "enrolled": "green", "renew": "yellow", "expired": "red", "revoked": "red"}  # fmt: skip


def print_status(home: Path, status: ServerStatus, console: Console) -> None:
    """One screen: addresses, certificate, sites, runs, refusals."""
    now = datetime.now(UTC)
    well = "" if status.well else " [red]and is not well: see its log[/red]"
    console.print(f"fedscan {status.version} serves {home} (process {status.pid}) since {_when(status.since)}{well}")
    console.print(f"  listens on {status.listen} port {status.port}; its names: {', '.join(status.hosts)}")
    console.print(f"  health on 127.0.0.1: http port {status.health_http}, grpc port {status.health_grpc}")
    left = status.certificate_ends - now
    soon = " [yellow]renew it: fedscan server renew[/yellow]" if left < RENEW_BEFORE else ""
    console.print(f"  certificate for {left.days} more days{soon}")
    _print_sites(status, console)
    if status.open is not None:
        console.print(f"open run: {status.open.record.name}, {_progress(status.open)}")
    else:
        console.print("open run: none")
    if status.queued:
        console.print(f"waiting: {', '.join(status.queued)}")
    if status.turned:
        table = _table(f"turned away: {status.refusals} since the start; the last, by reason", "who", "where", "why")
        table.add_column("times", justify="right")
        table.add_column("last")
        for r in status.turned:
            table.add_row(Text(_short(r.who)), Text(r.where), Text(r.why), str(r.times), _when(r.last))
        console.print(table)
    for message in status.damaged:
        console.print(Text(f"damaged: {message}", style="red"))


def print_runs(runs: tuple[RunState, ...], console: Console) -> None:
    """A line for each run in the order of the queue, and why some failed."""
    if not runs:
        console.print("no run yet; begin with: fedscan run start STUDY.signed.json")
        return
    table = _table(None, "run", "status", "how far", "study", "sites", "put in")
    for state in runs:
        r = state.record
        sites = ", ".join(r.sites) if r.sites else "all"
        table.add_row(Text(r.name), coloured(r.status), _progress(state), Text(r.study), Text(sites), _when(r.created))
    console.print(table)
    for state in runs:
        if state.record.why:
            console.print(Text(f"{state.record.name}: {state.record.why}", style="red"))


def coloured(word: str) -> Text:
    """A status in its colour."""
    return Text(word, style=COLOURS.get(word, ""))


def _print_sites(status: ServerStatus, console: Console) -> None:
    if not status.sites:
        console.print("sites: none is enrolled yet; begin with: fedscan server site add REQUEST")
        return
    connected = sum(s.connected for s in status.sites)
    table = _table(f"sites: {connected} of {len(status.sites)} connected", "site", "enrolment", "link", "until")
    for s in status.sites:
        link = Text("connected", style="green") if s.connected else Text("away")
        table.add_row(Text(s.name), coloured(s.standing), link, f"{s.expires:%Y-%m-%d}")
    console.print(table)


def _table(title: str | None, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _progress(state: RunState) -> str:
    p, done = state.progress, f"{state.progress.round} of {state.record.rounds} rounds"
    if not state.record.rounds:
        return "judges a given model"
    return done if p.best_metric is None else f"{done}, best Dice {number(p.best_metric)} (round {p.best_round})"


def _short(who: str) -> str:
    """A certificate's hash by its beginning; names and addresses as they are."""
    return f"{who[:12]}…" if len(who) == 64 else who


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
