"""Write, check, explain and sign a study."""

import json
from pathlib import Path
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from common.cli import load_command, offered
from common.errors import StudyError

GROUP = "fedscan.study_commands"


class StudyCommands(TyperGroup):
    """The commands below, and those that other folders offer as entry points of the group GROUP."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names: ours in the order of this file, then the others'."""
        return [*super().list_commands(ctx), *sorted(offered(GROUP))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command behind `cmd_name`, imported now if it is another folder's; None when there is none."""
        entry = offered(GROUP).get(cmd_name)
        return super().get_command(ctx, cmd_name) if entry is None else load_command(entry)


app = typer.Typer(cls=StudyCommands, help="Write, check, explain and sign a study.", no_args_is_help=True,
                  add_completion=False)  # fmt: skip

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output.")]


@app.command()
def new(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("study.yaml"),
    name: Annotated[str | None, typer.Option(help="Name of the study; else the file's.", show_default=False)] = None,
    dimensions: Annotated[int, typer.Option(min=2, max=3, help="3 for volumes, 2 for pictures.")] = 3,
    labels: Annotated[str, typer.Option(help="Structures, separated by commas.")] = "structure",
    channels: Annotated[str, typer.Option(help="Image channels, separated by commas.")] = "image",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented study to start from."""
    from common.documents import Document
    from common.study import study_of
    from common.study_template import study_text

    if path.exists() and not force:
        raise StudyError(f"{path} exists already; choose another name, or --force to replace it")
    given = name or _name_of(path)
    text = study_text(given, dimensions, _words(channels), _words(labels))
    study_of(Document(path, text))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror})") from None
    typer.echo(f"{path} written. Next: edit it, then `fedscan study check {path}`.")


@app.command()
def check(study: StudyFile, as_json: AsJson = False) -> None:
    """Say whether a study is right: every mistake with file, line and key."""
    from common.study_check import check_study

    try:
        checked, remarks = check_study(study)
    except StudyError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"valid": False, "errors": str(error).splitlines()}, ensure_ascii=False, indent=1))
        raise typer.Exit(2) from None
    if as_json:
        result = {"valid": True, "name": checked.name, "digest": checked.digest(), "remarks": remarks}
        typer.echo(json.dumps(result, ensure_ascii=False, indent=1))
        return
    typer.echo(f"✓ {study}: study {checked.name} is valid")
    typer.echo(f"  digest {checked.digest()}")
    for remark in remarks:
        typer.echo(f"  note: {remark}")


@app.command()
def explain(study: StudyFile, as_json: AsJson = False) -> None:
    """Say in plain words what will run, what leaves a site and what never does."""
    from common.study_check import check_study
    from common.study_explain import facts, words

    checked, _ = check_study(study)
    known = facts(checked)
    typer.echo(json.dumps(known, ensure_ascii=False, indent=1) if as_json else words(checked, known))


@app.command()
def start(
    weights: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A model's folder, or its weights.safetensors.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Say how a study names a model as its beginning: lines for the study file."""
    from common.start import start_facts, start_lines

    known = start_facts(weights)
    typer.echo(json.dumps(known, ensure_ascii=False, indent=1) if as_json else start_lines(known))


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from common.study_schema import schema_text

    typer.echo(schema_text(), nl=False)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _name_of(path: Path) -> str:
    """A valid study name near the file's."""
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in path.stem.lower()).strip("-")
    return name[:63] or "study"
