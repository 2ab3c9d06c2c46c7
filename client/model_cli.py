"""The models that came home to this site."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The models that came home to this site.", no_args_is_help=True, add_completion=False)

Home = Annotated[Path, typer.Option(help="The site's folder.", envvar="FEDSCAN_SITE_HOME")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.callback()
def main() -> None:
    """The models that came home to this site."""


@app.command("list")
def list_models(home: Home = Path(), as_json: AsJson = False) -> None:
    """Show the models, the newest first."""
    from client.report.desk import list_models as run

    if not run(home, as_json):
        raise typer.Exit(1)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its name, or how it begins.", show_default=False)],
    home: Home = Path(),
    as_json: AsJson = False,
) -> None:
    """Check a model byte by byte, and say what it is and what the study found."""
    from client.report.desk import show_model as run

    run(home, model, as_json)
