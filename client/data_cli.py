"""A site's scans: what is there, whether it will do, made ready, copied without identity."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="A site's scans: what is there, whether it will do, made ready, copied without identity.",
                  no_args_is_help=True, add_completion=False)  # fmt: skip


@app.callback()
def main() -> None:
    """A site's scans: what is there, whether it will do, made ready, copied without identity."""


Study = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file.", show_default=False)]
Site = Annotated[Path, typer.Option("--site", help="The site's file: at least `name:` and `data:`.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
_SITE = Path("site.yaml")


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder or file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what is in a folder: patients, examinations, series, sizes, labels. Nothing is changed or written."""
    from client.desk.inspect import show

    show(folder, as_json)


@app.command()
def check(
    study: Study,
    site: Site = _SITE,
    html: Annotated[
        Path | None, typer.Option("--html", help="Where the page with pictures goes.", show_default="beside site.yaml")
    ] = None,
    share: Annotated[
        Path | None,
        typer.Option(help="Also write what may be shown to the coordinator: kinds of findings and their numbers, "
                          "cases under made-up names.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """The quality gate: read every case, say what is wrong with it and what to do.

    Ends with 0 when there is no error (there may be warnings), 1 when there is one or no case can be used.
    The page has pictures of patients and stays here.
    """
    from client.desk.check import check as run

    if not run(study, site, html, share, as_json):
        raise typer.Exit(1)


@app.command()
def prepare(study: Study, site: Site = _SITE, as_json: AsJson = False) -> None:
    """Make every case ready for training; the second time only what changed.

    Says how many cases can be used, and why others cannot. Ends with 1 when none can.
    """
    from client.desk.check import prepare as run

    run(study, site, as_json)


@app.command()
def exclude(
    case: Annotated[str, typer.Argument(help="As `fedscan data check` names it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; stays at the site.", show_default=False)],
    site: Site = _SITE,
) -> None:
    """Leave a case out from now on: no later preparation and no later round uses it."""
    from client.desk.exclude import exclude as run

    run(case, reason, site)


@app.command()
def include(
    case: Annotated[str, typer.Argument(help="An excluded case.", show_default=False)], site: Site = _SITE
) -> None:
    """Take an excluded case in again."""
    from client.desk.exclude import include as run

    run(case, site)


@app.command()
def export(
    study: Study,
    out: Annotated[Path, typer.Option(help="A new folder, outside the scans.", show_default=False)],
    site: Site = _SITE,
    dates: Annotated[
        Literal["remove", "shift"],
        typer.Option(help="shift: all dates of a patient by one secret number of days; PET needs it."),
    ] = "remove",
    characteristics: Annotated[
        bool, typer.Option("--keep-characteristics", help="Keep sex, age (90 at most), size and weight.")
    ] = False,
    faces: Annotated[bool, typer.Option("--faces", help="Also scans that may show a face.")] = False,
    inspected: Annotated[
        bool, typer.Option("--inspected", help="Somebody has looked for text in doubtful images and found none.")
    ] = False,
) -> None:  # fmt: skip
    """Write a copy without identity (DICOM PS3.15 Basic Profile), for those who must give scans away.

    fedscan never needs one: training happens where the scans are.
    """
    from client.desk.export import run

    run(study, site, out, dates, characteristics, faces, inspected)


@app.command()
def findings() -> None:
    """List all that the gate can find: how bad it is, what it means, what to do (as a Markdown table)."""
    from client.data.gate.codes import page

    typer.echo(page(), nl=False)
