"""Files that are there whole or not at all, whatever moment a crash, a power cut or a full disk chooses."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from common.errors import StorageError

_UMASK = threading.Lock()  # it is the whole process's: two threads would put back each other's


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, put it on the disk, then give it the name `path`.

    Raises:
        StorageError: It could not be written; what was at `path` before is still there.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError | SafetensorError) -> StorageError:
    """The error for people: which file, why, what to do."""
    # NumPy's errors of writing have no number, safetensors' no class of their own.
    why = (isinstance(error, OSError) and error.strerror) or str(error)
    return StorageError(f"{path} could not be written: {why}. Make room on the disk (or put right what is said here), "
                        "then go on (run resume, simulate --resume): nothing that was finished is lost")  # fmt: skip


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """What is made within gets no permission of `mask`; for a few lines, since other threads' files get none either."""
    with _UMASK:
        before = os.umask(mask)
        try:
            yield
        finally:
            os.umask(before)


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
