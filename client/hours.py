"""When a site may work: at night only, for example."""

from collections.abc import Sequence
from datetime import datetime, time
from typing import Annotated

from pydantic import Field

_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
# From the first time of day to just before the second, on this machine's clock; over midnight where it is earlier.
Window = Annotated[str, Field(pattern=rf"^{_CLOCK}-({_CLOCK}|24:00)$", description="such as 20:00-06:00")]


def open_at(windows: Sequence[Window], now: datetime) -> bool:
    """Whether work may be done at `now`, in this machine's zone; always where there are no windows."""
    return not windows or any(_within(window, now.time()) for window in windows)


def _within(window: str, now: time) -> bool:
    begin, _, end = window.partition("-")
    start = time.fromisoformat(begin)
    if end == "24:00":
        return now >= start
    stop = time.fromisoformat(end)
    return start <= now < stop if start < stop else now >= start or now < stop
