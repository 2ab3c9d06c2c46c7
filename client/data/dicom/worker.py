"""The child process in which DICOM files are parsed: one JSON request per line in, one JSON answer per line out.

It has limits on memory, processor time, file size and open files, and nothing of the parent's environment. It is
started by `workers.Workers`; a file that hangs or crashes it costs this process and nothing else.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from client.data.dicom import limits
from client.data.dicom.problems import REASONS, Unreadable

# Name -> module:function. Arguments and results are JSON values; arrays go to a file that the parent has made.
TASKS = {
    "headers": "client.data.dicom.header:headers",
    "pixels": "client.data.dicom.pixels:pixels",
    "digest": "client.data.dicom.pixels:digest",
    "unpack": "client.data.dicom.archive:unpack",
    "structures": "client.data.structures.file:structures",
    "write-seg": "client.data.writers.seg:write_seg",
    "export": "client.data.export.objects:export",
    "privacy": "client.data.gate.identity:privacy",
}

_Answer = dict[str, Any]


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent is interrupted, and ends us by closing the pipe.
    _limit()
    answers = os.fdopen(os.dup(1), "wb")
    # Libraries that print must not write into the answers, nor patient data into the parent's terminal.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    importlib.import_module("pydicom")
    _send(answers, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_seconds(request["seconds"])
        _send(answers, _answer(request["task"], request["arguments"]))


def _send(stream: Any, answer: _Answer) -> None:
    # NaN is no JSON: a task that lets one through has a bug, and the parent must not meet it.
    stream.write(json.dumps(answer, allow_nan=False, separators=(",", ":")).encode() + b"\n")
    stream.flush()


def _answer(task: str, arguments: dict[str, Any]) -> _Answer:
    try:
        return {"result": _function(task)(**arguments)}
    except Unreadable as error:
        return _refusal(error.reason, error.what)
    except (MemoryError, OverflowError):
        return _refusal("too-large", "")
    except FileNotFoundError:
        return _refusal("missing", "no such file")
    except PermissionError:
        return _refusal("missing", "no permission")
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes a library raise
        # The words of an exception may hold what stands in the file.
        return _refusal("damaged", type(error).__name__)


def _refusal(reason: str, what: str) -> _Answer:
    return {"refused": reason if reason in REASONS else "damaged", "what": what}


def _function(task: str) -> Callable[..., _Answer]:
    module, _, name = TASKS[task].partition(":")
    function: Callable[..., _Answer] = getattr(importlib.import_module(module), name)
    return function


def _limit() -> None:
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_AS, limits.MEMORY)
    _set(resource.RLIMIT_FSIZE, limits.FILE)
    _set(resource.RLIMIT_NOFILE, limits.OPEN_FILES)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # The write fails instead, and says so.


def _limit_seconds(seconds: float) -> None:
    """Processor time for the next request; the hard limit stays, so that it can be raised again."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)


def _set(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # macOS has no limit on address space; the time limit and the caps on sizes still hold.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(limit, (value, hard))


if __name__ == "__main__":
    main()
