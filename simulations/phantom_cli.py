"""Make up hospitals with scans of phantom patients, to try things on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Gets one folder for each hospital.", show_default=False)],
    sites: Annotated[int, typer.Option(min=1, max=100, help="Number of hospitals.")] = 2,
    cases: Annotated[int, typer.Option(min=1, max=10_000, help="Cases of each.")] = 20,
    dimensions: Annotated[int, typer.Option(min=2, max=3, help="3: volumes; 2: pictures (PNG, or DICOM).")] = 3,
    difference: Annotated[
        float, typer.Option(min=0, max=2, help="How much the hospitals differ: 0 not at all, 1 as real ones may.")
    ] = 1.0,
    contrast: Annotated[
        float, typer.Option(min=0, max=2, help="How far their grey value curves lie apart besides; 1 is much.")
    ] = 0.0,
    rarity: Annotated[
        float, typer.Option(min=0, max=1, help="Share of every second hospital's patients who have no kidney.")
    ] = 0.0,
    wrong_labels: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the last hospital's cases with liver and kidneys exchanged.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of patients and scanners.")] = 1,
    format: Annotated[
        Literal["nifti", "dicom"], typer.Option(help="dicom: series with SEG or RTSTRUCT, X-ray pictures in 2D.")
    ] = "nifti",
) -> None:
    """Write the scans of made-up hospitals, to try everything without a patient's.

    Each folder is a data set in nnU-Net's layout with the labels liver (1) and kidneys (2), or DICOM with a site.yaml.
    """
    from simulations.dials import Dials
    from simulations.phantom import make_phantom

    made = make_phantom(
        folder,
        sites=sites,
        cases=cases,
        dimensions=2 if dimensions == 2 else 3,
        difference=difference,
        seed=seed,
        format=format,
        dials=Dials(contrast, rarity, wrong_labels),
    )
    for site in made:
        typer.echo(site)
