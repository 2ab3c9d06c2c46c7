"""A hospital's site: its keys, its federation and its two processes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from client.model_cli import app as models
from client.study_cli import app as studies

app = typer.Typer(help="A hospital's site: its keys, its federation and its two processes.", no_args_is_help=True,
                  add_completion=False)  # fmt: skip


app.add_typer(studies, name="study")
app.add_typer(models, name="model")


@app.callback()
def main() -> None:
    """A hospital's site: its keys, its federation and its two processes."""


Home = Annotated[Path, typer.Option(help="The site's folder.", envvar="FEDSCAN_SITE_HOME")]
Log = Annotated[Literal["text", "json"], typer.Option("--log", help="Form of the log on standard error.")]


@app.command()
def init(
    name: Annotated[
        str | None, typer.Option(help="The name to propose; the coordinator decides.", show_default=False)
    ] = None,
    home: Home = Path(),
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Of a site that has joined: make new TLS and reply keys.")
    ] = False,
) -> None:
    """Make the site's keys here, and the request for the coordinator."""
    from client.desk.enrol import init as run

    run(home, name, new_keys)


@app.command()
def join(
    file: Annotated[Path, typer.Argument(metavar="JOIN", help="The coordinator's answer.", show_default=False)],
    home: Home = Path(),
    yes: Annotated[
        str | None,
        typer.Option("--yes", metavar="FINGERPRINT", help="Do not ask: go on if this is the coordinator's.",
                     show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Leave the federation that the site is in for this one.")
    ] = False,
) -> None:  # fmt: skip
    """Install the certificate, the authority and the signing key that the coordinator sent."""
    from client.desk.enrol import join as run

    run(home, file, yes, replace)


@app.command()
def trainer(home: Home = Path(), log: Log = "text") -> None:
    """Be the process with the scans and no network, until it is told to end."""
    from client.trainer import run

    run(home, log)


@app.command()
def link(home: Home = Path(), log: Log = "text") -> None:
    """Be the process with the network and no scans, until it is told to end."""
    from client.link import run

    run(home, log)


AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Process = Literal["link", "trainer"]


@app.command()
def start(
    home: Home = Path(),
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this terminal; logs go to standard error.")
    ] = False,
    log: Log = "text",
) -> None:
    """Start link and trainer, and start them again whenever one of them dies."""
    from client.desk.service import start as run

    run(home, foreground, log)


@app.command()
def stop(home: Home = Path()) -> None:
    """End link and trainer; open work goes on with the next start."""
    from client.desk.service import stop as run

    run(home)


@app.command()
def status(
    home: Home = Path(),
    as_json: AsJson = False,
    check: Annotated[
        Process | None,
        typer.Option(help="Only whether this process works, for health checks.", show_default=False),
    ] = None,
) -> None:
    """Show the connection, what is trained, the processes and the certificate."""
    from client.desk import service

    if not (service.check(home, check) if check else service.show(home, as_json)):
        raise typer.Exit(1)


@app.command()
def preflight(
    home: Home = Path(),
    part: Annotated[
        Process | None,
        typer.Option(help="Only what this process needs: where the two run apart.", show_default=False),
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="Hold the data against this study's channels and labels.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check all that a site needs: a list of ticks and remedies. It starts nothing and changes nothing."""
    from client.desk.preflight import show

    if not show(home, part, study, as_json):
        raise typer.Exit(1)


@app.command()
def report(
    home: Home = Path(),
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes.", show_default="site-report.html in the site's folder")
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", show_default=False,
                     help="A model of your own to set beside: judged on the same cases, here."),
    ] = None,
    cases: Annotated[int, typer.Option(min=0, help="So many cases get pictures.")] = 12,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.", show_default="as in site.yaml")
    ] = None,
) -> None:  # fmt: skip
    """Write one page for the hospital's own people: the model, your cases, your data, approvals, what left."""
    from client.report.desk import report as run

    run(home, out, local, cases, device)


Why = Annotated[str, typer.Option(help="Why, for the audit log; it stays at the site.", show_default=False)]


@app.command()
def pause(why: Why = "", home: Home = Path()) -> None:
    """Let nothing leave from now on; the work stops after its step and is kept."""
    from client.desk.stopping import pause as run

    if not run(home, why):
        raise typer.Exit(1)


@app.command()
def unpause(why: Why = "", home: Home = Path()) -> None:
    """Go on after a pause."""
    from client.desk.stopping import unpause as run

    run(home, why)


egress = typer.Typer(help="What left this site.", no_args_is_help=True, add_completion=False)
app.add_typer(egress, name="egress")


@egress.callback()
def egress_main() -> None:
    """What left this site."""


@egress.command("show")
def egress_show(
    home: Home = Path(),
    number: Annotated[int | None, typer.Option("--round", help="Of this round alone.", show_default=False)] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option(metavar="STUDY", show_default=False,
                     help="Train one round of this study here, for your eyes only, and show what would leave."),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show what left, when, to whom and how large; or what would."""
    if dry_run is not None:
        from client.desk.rehearsal import show

        if not show(home, dry_run, as_json):
            raise typer.Exit(1)
        return
    from client.desk.books import show_egress

    show_egress(home, number, as_json)


audit = typer.Typer(help="What happened at this site, and who did it.", no_args_is_help=True, add_completion=False)
app.add_typer(audit, name="audit")


@audit.callback()
def audit_main() -> None:
    """What happened at this site, and who did it."""


@audit.command("verify")
def audit_verify(
    home: Home = Path(),
    head: Annotated[
        str | None, typer.Option(help="A head that was seen elsewhere, as by the coordinator.", show_default=False)
    ] = None,
    length: Annotated[int | None, typer.Option(help="How many lines the log had then.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Find every edit, cut and reorder in the audit log, and whether all that left is in the ledger."""
    from client.desk.books import verify_audit

    if (head is None) != (length is None):
        raise typer.BadParameter("--head and --length belong together")
    if not verify_audit(home, head, length, as_json):
        raise typer.Exit(1)
