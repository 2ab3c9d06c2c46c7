"""A hospital's site: its keys, its federation and its two processes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="A hospital's site: its keys, its federation and its two processes.", no_args_is_help=True,
                  add_completion=False)  # fmt: skip


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
    from client.enrol import init as run

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
    from client.enrol import join as run

    run(home, file, yes, replace)


@app.command()
def trainer(home: Home = Path(), log: Log = "text") -> None:
    """Be the process with the scans and no network, until it is told to end."""
    from client.trainer import run

    run(home, log)
