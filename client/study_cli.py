"""Decide which studies run at a site."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Decide which studies run here.", no_args_is_help=True, add_completion=False)

Home = Annotated[Path, typer.Option(help="The site's folder.", envvar="FEDSCAN_SITE_HOME")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Which = Annotated[
    str, typer.Argument(metavar="STUDY", help="Its name, or the first letters of its digest.", show_default=False)
]
Why = Annotated[str, typer.Option(help="In your own words, for this site's records.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.callback()
def main() -> None:
    """Decide which studies run here."""


@app.command("list")
def list_studies(home: Home = Path(), as_json: AsJson = False) -> None:
    """The studies that came to this site, and how each stands."""
    from client.desk.studies import show_list

    show_list(home, as_json)


@app.command()
def show(study: Which, home: Home = Path(), as_json: AsJson = False) -> None:
    """What a study does and what leaves, in plain words, and how it differs from what was approved before."""
    from client.desk.studies import show_study

    show_study(home, study, as_json)


@app.command()
def approve(
    study: Which,
    home: Home = Path(),
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Only until then: 2026-12-31, or 2026-12-31T18:00.", show_default=False),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Only for so many rounds from now on.", show_default=False)
    ] = None,
    purpose: Annotated[
        Literal["all", "evaluate"], typer.Option(help="evaluate: models are measured here, but not trained.")
    ] = "all",
    why: Why = "",
    yes: Yes = False,
) -> None:
    """Let a study run here, as long as you say."""
    from client.desk.studies import approve as run

    run(home, study, until, rounds, purpose, why, yes)


@app.command()
def reject(study: Which, home: Home = Path(), why: Why = "", yes: Yes = False) -> None:
    """Say no to a study. It can be approved later."""
    from client.desk.studies import refuse

    refuse(home, study, "reject", why, yes)


@app.command()
def withdraw(study: Which, home: Home = Path(), why: Why = "", yes: Yes = False) -> None:
    """Take an approval back: work on the study stops at once, and this site leaves it."""
    from client.desk.studies import refuse

    refuse(home, study, "withdraw", why, yes)
