"""The trainer's log holds no patient data, UID or path of a scan; what may hold one goes to a file of its own."""

import logging
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path

from common.errors import CheckpointError, IdentityError, SignatureError, TrainingError, WireError

FILE = "errors.log"
_BYTES = 4 * 1024 * 1024  # of each of two generations

# Their messages speak of messages, numbers and the site's own files. All others may name a case.
_PLAIN = (CheckpointError, IdentityError, SignatureError, TrainingError, WireError)


class Discretion(logging.Filter):
    """Of an error that may name a case, and of what other libraries log, only the kind and the place pass.

    The whole text is appended to `errors.log` in the trainer's folder, which only the trainer's user may enter.

    Args:
        folder: The trainer's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / FILE
        self._file = RotatingFileHandler(self._path, maxBytes=_BYTES, backupCount=1, encoding="utf-8", delay=True)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave in `record` what may be shown."""
        error = _error(record)
        own = record.name == "fedscan" or record.name.startswith("fedscan.")
        if own and (error is None or isinstance(error, _PLAIN)) and not record.exc_info:
            return True
        self._file.handle(record)
        record.msg, record.args = "%s; what was said is in %s", (_kind(record, error), self._path.name)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def _error(record: logging.LogRecord) -> BaseException | None:
    if record.exc_info and record.exc_info[1]:
        return record.exc_info[1]
    args = record.args if isinstance(record.args, tuple) else ()
    return next((a for a in args if isinstance(a, BaseException)), None)


def _kind(record: logging.LogRecord, error: BaseException | None) -> str:
    if error is None:
        return f"a message of {record.name}"
    where = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
    return f"{getattr(error, 'code', 'unexpected')} {type(error).__name__}{place}"
