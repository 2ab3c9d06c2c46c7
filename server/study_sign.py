"""Sign a study, so that sites may run it."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import DEFAULT_HOME, Home, Keys, PassphraseFile

app = typer.Typer(add_completion=False)


@app.command("sign")
def sign(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study file.", show_default=False)],
    run: Annotated[
        str | None, typer.Option(help="Name of the run; else the study's name and the time.", show_default=False)
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=730, help="How long the run may last.")] = 90,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; else STUDY with the ending .signed.json.",
                                  show_default=False)
    ] = None,
    home: Home = DEFAULT_HOME,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Sign a study and the order for one run of it.

    Needs the offline keys, so it can be done on a machine without network; nothing of the server needs them later.
    """
    from server.enrolment.signing_desk import sign_file

    sign_file(study, run, days, out or study.with_suffix(".signed.json"), home, keys, passphrase_file)
