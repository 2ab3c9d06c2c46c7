"""List the strategies and explain one of them."""

import sys

import typer

from common.catalogue_cli import catalogue_app
from common.names import STRATEGIES


def _further(name: str) -> None:
    from common.catalogue import entry

    one = entry(STRATEGIES, name)
    typer.echo(f"\n{one['equation']}")
    typer.echo(f"  kept at the server: {one['server']}")
    typer.echo(f"  kept at a site: {one['site']}, besides the optimiser's moments")
    typer.echo(f"  crosses besides the weights: {one['sent']}")


app = catalogue_app(
    STRATEGIES,
    "List the strategies and explain one of them.",
    ("strategy", "suited for", "source"),
    lambda one: (one["title"], one["suited"], one["source"].split(",")[0]),
    _further,
)


@app.command()
def page() -> None:
    """Print docs/strategies.md, the catalogue as a page."""
    from server.strategies_page import page_text

    sys.stdout.write(page_text())
