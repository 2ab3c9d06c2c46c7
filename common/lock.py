"""One process at a time; the system frees the lock when its process ends, however that happens."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import FedscanError


@contextmanager
def alone(path: Path, otherwise: FedscanError) -> Iterator[None]:
    """Hold the lock file `path`, with this process's number in it for people; raises `otherwise` if another does."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise otherwise from None
        os.ftruncate(file.fileno(), 0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def held(path: Path) -> bool:
    """Whether a process holds the lock file."""
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
