"""The log of a process that serves: one line per entry on standard error, as text or as JSON.

What is logged is for the people of this machine. No entry may hold a scan's name, a patient's, or a key.
"""

import json
import logging
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Form = Literal["text", "json"]
LONG = 16 * 1024 * 1024  # bytes of a log file that no other program rotates


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "from": record.name, **_said(record)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A message's own line breaks would look like entries of their own.
        message = " ".join(record.getMessage().splitlines())
        line = f"{_time(record)} {record.levelname.lower():<7} {record.name}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def start_log(form: Form = "text") -> None:
    """Send all that is logged to standard error: our own from INFO, the libraries' from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("fedscan").setLevel(logging.INFO)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _said(record: logging.LogRecord) -> dict[str, object]:
    """The message; one that is a JSON object already is laid open."""
    message = record.getMessage()
    if message.startswith("{"):
        try:
            facts = json.loads(message)
        except ValueError:
            return {"message": message}
        return {"message": next(iter(facts), ""), "facts": facts}
    return {"message": message}


def silence_handlers() -> None:
    """Take away the handlers that libraries brought with them: what they say would stand in the log twice."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True


def keep_short(path: Path) -> None:
    """Begin a log file anew when it has grown long; one older generation stays. Whoever writes it must append."""
    try:
        if path.stat().st_size > LONG:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)
    except FileNotFoundError:
        return
