"""List the nets and draw one of them as a table."""

import sys
from collections.abc import Iterator
from typing import Any

import typer

from common.catalogue_cli import catalogue_app
from common.names import NETS


def _columns(one: dict[str, Any]) -> Iterator[str]:
    yield one["title"]
    yield "/".join(f"{n}D" for n in one["dimensions"])
    yield " / ".join(f"{size['parameters'] / 1e6:,.2f}" for size in one["sizes"].values())
    yield " / ".join(f"{size['megabytes_fp32']:,.1f}" for size in one["sizes"].values())
    yield one["norm"]
    yield one["suited"]


def _architecture(name: str) -> None:
    from common.catalogue import architecture, entry

    one = entry(NETS, name)
    typer.echo(f"\nIn a federation\n  {one['federation']}")
    field = one["receptive_field"]
    typer.echo(f"  receptive field: {f'{field} voxels per axis' if field else 'not bounded, or not known'}")
    for dimensions in one["dimensions"]:
        size = one["sizes"][f"{dimensions}D"]
        shape, parts = architecture(name, dimensions, {})
        typer.echo(
            f"\nIn {dimensions}D with its defaults, one label: {size['parameters']:,} parameters, "
            f"{size['megabytes_fp32']:,.1f} MB per update in fp32, {size['megabytes_fp16']:,.1f} MB in fp16"
        )
        typer.echo(f"  {'part':<24}{'kind':<24}{'output for ' + str(tuple(shape)):<36}{'parameters':>12}")
        for part, kind, output, parameters in parts:
            typer.echo(f"  {part:<24}{kind:<24}{output!s:<36}{parameters:>12,}")


app = catalogue_app(
    NETS,
    "List the nets and draw one of them as a table.",
    ("net", "dim.", "parameters (M)", "MB fp32", "norm", "suited for"),
    _columns,
    _architecture,
)


@app.command()
def page() -> None:
    """Print docs/nets.md, the catalogue as a page."""
    from common.nets_page import page_text

    sys.stdout.write(page_text())
