"""Train a study over simulated hospitals on this machine, and say whether federation was worth it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def simulate(
    study: Annotated[
        Path | None,
        typer.Argument(
            help="Study file.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that the study's data paths start from.", envvar="FEDSCAN_DATA", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for runs and prepared cases.")] = Path("fedscan-runs"),
    engine: Annotated[
        Literal["inline", "ray"], typer.Option(help="inline: all in this process; ray: Flower's simulation engine.")
    ] = "inline",
    phantom: Annotated[
        Literal["nifti", "dicom"] | None,
        typer.Option(help="Format of made-up scans, whatever the study says.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many seeds, counted up from the study's.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest simulation of this study.")] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE,VALUE or KEY=LOW..HIGH (powers of ten), e.g. strategy=fedavg,fedprox; may be given again. "
            "Tries every combination on validation cases, without baselines, and tests the best one.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Trials of a sweep at the same time; half of the cores.", show_default=False),
    ] = None,
) -> None:
    """Train a study over simulated hospitals and say whether federation was worth it.

    STUDY is a study file with a sites: or partition: section (see examples/); without one, four hospitals with
    phantom patients are made up.

    Trains the compared strategies, every hospital alone and all hospitals' cases pooled; tests each on every
    hospital's own test cases; ends with the path of one HTML report.
    """
    from simulations.console import run, run_sweep

    if sweep:
        run_sweep(study, data, out, sweep, seeds, jobs, resume, phantom)
    else:
        run(study, data, out, engine, seeds, resume, phantom)
