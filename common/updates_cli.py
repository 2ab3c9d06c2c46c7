"""List the forms in which updates cross, and explain one of them."""

import typer

from common.catalogue_cli import catalogue_app
from common.names import UPDATES


def _further(name: str) -> None:
    from common.catalogue import entry

    one = entry(UPDATES, name)
    typer.echo(f"\n{one['equation']}")
    typer.echo(f"  bytes per parameter: {one['size']}")
    typer.echo(f"  kept at a site: {one['site']}")


app = catalogue_app(
    UPDATES,
    "List the forms in which updates cross, and explain one of them.",
    ("update", "suited for", "source"),
    lambda one: (one["title"], one["suited"], one["source"].split(",")[0]),
    _further,
)
