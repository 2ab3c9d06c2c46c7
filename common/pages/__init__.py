"""What all HTML pages share: their look, and that they need nothing else: no script, font or picture from elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path, **filters: Callable[..., Any]) -> Environment:
    """The templates of `folder`, which may extend `base.html.j2` and bring their own `page.css`; text is escaped."""
    jinja = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    jinja.filters |= filters
    return jinja
