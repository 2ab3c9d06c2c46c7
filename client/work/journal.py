"""Files to which lines are only ever added: each is whole on the disk, or not there."""

import os
from pathlib import Path

from common.disk import not_written


def append_line(path: Path, line: bytes) -> None:
    """Put one line at the end of a file and on the disk, or leave the file as it was; raises StorageError."""
    handle = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        size = os.fstat(handle).st_size
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(line + b"\n")
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    except OSError as error:
        raise not_written(path, error) from None
    finally:
        if handle >= 0:
            os.close(handle)


def mend(path: Path, most: int) -> bool:
    """Cut off a last line without an end, and say whether there was one.

    Nothing relied on it: whoever writes waits until a line is whole.

    Args:
        path: The file; it may be missing.
        most: Bytes of the longest line.
    """
    if not path.exists():
        return False
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        tail = min(size, most + 1)
        file.seek(size - tail)
        end = file.read(tail)
        keep = size - tail + end.rfind(b"\n") + 1
        if keep == size or (b"\n" not in end and size > tail):
            return False
        file.truncate(keep)
        os.fsync(file.fileno())
        return True
