"""`list` and `show` for a registry: one pair of commands, used by each kind of thing that a study names."""

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from pydantic_core import PydanticCustomError
from rich.console import Console
from rich.table import Table

from common.errors import StudyError
from common.registry import Registry

AsJson = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output.")]
Columns = Callable[[dict[str, Any]], Iterable[str]]


def catalogue_app(
    registry: Registry, about: str, headings: Iterable[str], columns: Columns, further: Callable[[str], None]
) -> typer.Typer:
    """The commands of one registry.

    Args:
        registry: What is listed.
        about: First line of the help.
        headings: Of the list, after the name.
        columns: An entry's cells under them.
        further: Prints what `show` adds for this kind of thing, given the name.
    """
    app = typer.Typer(help=about, no_args_is_help=True, add_completion=False)

    @app.command("list", help=f"All {registry.kind} names with what one chooses by.")
    def list_all(as_json: AsJson = False) -> None:
        from common.catalogue import entry

        entries = [entry(registry, name) for name in registry.names()]
        if as_json:
            typer.echo(json.dumps(entries, ensure_ascii=False, indent=1))
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("name", *headings):
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        for one in entries:
            table.add_row(one["name"], *columns(one))
        console = Console()
        # A pipe has no width: nothing is cut there.
        Console(width=console.width if console.is_terminal else 250).print(table)

    @app.command(help=f"One {registry.kind}: source, options with their defaults, and what it is good for.")
    def show(
        name: Annotated[str, typer.Argument(help="A name from `list`.", show_default=False)], as_json: AsJson = False
    ) -> None:
        from common.catalogue import default_of, entry

        try:
            one = entry(registry, name)
        except PydanticCustomError as error:
            raise StudyError(error.message()) from None
        if as_json:
            typer.echo(json.dumps(one, ensure_ascii=False, indent=1))
            return
        typer.echo(f"{one['name']}: {one['title']}\n{one['source']}\n{one['suited']}\n\n{one['about']}\n")
        typer.echo("Options" if one["options"] else "No options")
        for option in one["options"]:
            typer.echo(f"  {option['name']}: {default_of(option)}  ({option['allowed']})")
            if option["about"]:
                typer.echo(f"      {option['about']}")
        further(name)

    return app
