"""List the metrics and explain one of them."""

from typing import Any

import typer

from common.catalogue_cli import catalogue_app
from common.names import METRICS


def _columns(one: dict[str, Any]) -> tuple[str, ...]:
    unit = METRICS.get(one["name"]).unit  # type: ignore[attr-defined]
    return one["title"], unit or "–", one["suited"], one["source"].split(",")[0]


def _further(name: str) -> None:
    metric: Any = METRICS.get(name)
    ends = f"{metric.least:g} … {'∞' if metric.most is None else format(metric.most, 'g')} {metric.unit}".rstrip()
    typer.echo(f"Range {ends}, {metric.ideal:g} where prediction and truth are equal; in neither map: no value")


app = catalogue_app(
    METRICS,
    "List the metrics and explain one of them.",
    ("metric", "unit", "suited for", "source"),
    _columns,
    _further,
)
