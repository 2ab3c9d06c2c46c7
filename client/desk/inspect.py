"""The command `fedscan data inspect`."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.data.inventory import Group, Inventory, inventory
from client.desk.check import bars

_NAMES = 20  # label names shown
_FILES = 5  # files named that cannot be read


def show(folder: Path, as_json: bool) -> None:
    """Print what lies in `folder`; raises DataError when there is nothing that fedscan knows."""
    with bars(as_json) as shown:
        found = inventory(folder, shown.of("looking at cases"), shown.of("looking at files"))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    for line in _counts(found):
        click.echo(line)
    Console().print(_table(found.groups))
    for line in (*_values(found), *_odd(found)):
        click.echo(line)


def _counts(found: Inventory) -> Iterator[str]:
    if found.series:
        yield (
            f"DICOM: {found.patients} patients, {found.examinations} examinations, {found.series} series, "
            f"{sum(group.volumes for group in found.groups)} volumes"
        )
    else:
        yield f"layout {found.layout}: {found.patients} patients"
    unreadable = f", {len(found.unreadable)} with a file that cannot be read" if found.unreadable else ""
    yield f"for a study with one image channel: {found.cases} cases, {found.labelled} with a label{unreadable}"
    for why in found.unreadable[:_FILES]:
        # Names of files may hold signs that move a cursor.
        yield "  " + "".join(sign if sign.isprintable() else "\ufffd" for sign in why)
    if len(found.unreadable) > _FILES:
        yield f"  … and {len(found.unreadable) - _FILES} more"


def _table(groups: Sequence[Group]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("volumes", "labelled"):
        table.add_column(name, justify="right")
    for name in ("what", "voxels", "spacing (mm)", "told apart by"):
        table.add_column(name, overflow="fold")
    for group in groups:
        names = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in group.names.items())
        cells = (str(group.volumes), str(group.labelled), group.kind, _range(group.shapes, "d"),
                 _range(group.spacings, ".3g"), names)  # fmt: skip
        # Text, not markup: names come from files.
        table.add_row(*map(Text, cells))
    return table


def _range(ends: tuple[Sequence[float], Sequence[float]], form: str) -> str:
    low, high = (" × ".join(format(n, form) for n in row) for row in ends)
    return low if low == high else f"{low} … {high}"


def _values(found: Inventory) -> Iterator[str]:
    if found.values:
        shown = list(found.values.items())[:_NAMES]
        more = len(found.values) - len(shown)
        yield (
            "in the labels: "
            + ", ".join(f"{name} (in {n})" for name, n in shown)
            + (f" and {more} more" if more else "")
        )


def _odd(found: Inventory) -> Iterator[str]:
    for (severity, code), number in Counter((f.severity, f.code) for f in found.findings).most_common():
        first = next(f for f in found.findings if (f.severity, f.code) == (severity, code))
        yield f"{severity} {code}: {number}, e.g. {first.what}"
        yield f"  → {first.remedy}"
