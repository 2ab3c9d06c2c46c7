"""Start, watch and report runs of signed studies."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import DEFAULT_HOME, Home

app = typer.Typer(help="Start, watch and report runs of signed studies.", no_args_is_help=True, add_completion=False)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name.", show_default=False)]
MaybeRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="The run's name; else the one that goes on, or the last.",
                               show_default=False)
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command()
def start(
    study: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="The signed study, or the study file beside which it lies.",
                       show_default=False),
    ],
    sites: Annotated[
        str | None, typer.Option(help="Sites that take part, separated by commas; else all.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show how it goes on, until it has ended.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="The file of the study's start; else the one that start.file of the study file names.",
                     show_default=False),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:  # fmt: skip
    """Put a run into the server's queue."""
    from server.service.run_desk import start as run

    names = tuple(name for name in (n.strip() for n in (sites or "").split(",")) if name)
    raise typer.Exit(run(study, names or None, watch, home, weights))


@app.command("list")
def list_runs(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show all runs in the order of the queue."""
    from server.service.run_desk import list_runs as run

    run(as_json, home)


@app.command()
def watch(run: MaybeRun = None, home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show how a run goes on, from its beginning until it has ended."""
    from server.service.run_desk import watch as show

    raise typer.Exit(show(run, home, as_json))


@app.command()
def abort(run: RunName, home: Home = DEFAULT_HOME) -> None:
    """End a run that waits or goes on; `resume` takes it up again."""
    from server.service.control import ControlClient

    with ControlClient(home) as client:
        client.abort(run)
    typer.echo(f"run {run} is aborted; what its rounds reached is kept")
    typer.echo(f"  to go on: fedscan run resume {run}")


@app.command()
def resume(run: RunName, home: Home = DEFAULT_HOME) -> None:
    """Put a run that failed or was aborted back into the queue; it goes on where it stopped."""
    from server.service.control import ControlClient

    with ControlClient(home) as client:
        client.resume(run)
    typer.echo(f"run {run} is in the queue")
    typer.echo(f"  see it go on: fedscan run watch {run}")


@app.command()
def report(
    run: MaybeRun = None,
    out: Annotated[
        Path | None, typer.Option(help="Copy the files to this folder.", show_default=False)
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:  # fmt: skip
    """Write the report of a run (HTML, CSV, JSON) and its best model."""
    from server.service.run_desk import report as write

    write(run, out, home)
