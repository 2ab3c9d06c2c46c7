"""Use a model: masks of scans, as NIfTI and DICOM SEG. For research only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command("predict")
def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", show_default=False,
                       help="A model's folder or file, or the name of one that came home (fedscan site model list)."),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", show_default=False,
                       help="NIfTI, NRRD or picture files, folders of them, or folders with DICOM."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks.", show_default=False)],
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    home: Annotated[
        Path, typer.Option(help="The site's folder: its models, its rules on series.", envvar="FEDSCAN_SITE_HOME")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:  # fmt: skip
    """Write a mask for every image, on the image's own grid.

    Images are prepared, looked at and post-processed as in the study that made the model. Of DICOM a SEG object is
    written, too, with the study's codes, which refers to the series. Ends with 1 when an image could not be used.
    """
    from client.prediction.desk import predict as run

    if not run(model, images, out, device, home, as_json):
        raise typer.Exit(1)
