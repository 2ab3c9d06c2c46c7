"""What happened in a run, one JSON line each: the single source for the terminal, the dashboard and the report."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.disk import not_written

Event = dict[str, Any]


class Events:
    """An append-only file of events.

    Args:
        path: The file; a line torn by a crash is cut off when it is opened.
        listener: Also told of each event as it happens.
    """

    def __init__(self, path: Path, listener: Callable[[Event], None] | None = None) -> None:
        self.path = path
        self._listener = listener
        if path.exists():
            whole = path.read_bytes()
            os.truncate(path, whole.rfind(b"\n") + 1)

    def append(self, kind: str, **facts: Any) -> None:
        """Write one event with the time in UTC; it is on the disk on return. Raises StorageError."""
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **facts}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise not_written(self.path, error) from None
        if self._listener:
            self._listener(event)


def read_events(path: Path) -> list[Event]:
    """The events that stand: what a crash undid is left out, and so is a line that is still being written."""
    standing: list[Event] = []
    if not path.exists():
        return standing
    text = path.read_text(encoding="utf-8")
    for line in text[: text.rfind("\n") + 1].splitlines():
        happened(standing, json.loads(line))
    return standing


def happened(standing: list[Event], event: Event) -> None:
    """Make `standing`, the events that stood before `event`, those that stand after it.

    A run that began twice was killed before its first checkpoint; that its sites joined still stands. A `resumed`
    event says after which round the run went on; what was said before it of later rounds, or of a final test, was
    undone.
    """
    if event["event"] == "started":
        begun = next((i for i, e in enumerate(standing) if e["event"] == "started"), len(standing))
        del standing[begun:]
    elif event["event"] == "resumed":
        standing[:] = [e for e in standing if e.get("round", 0) <= event["after"] and e.get("part") != "test"]
    standing.append(event)
