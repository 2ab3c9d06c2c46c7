"""The folder that link and trainer share: task and reply as safetensors files, each whole or not there.

    trainer.sock         the trainer's service
    task.safetensors     the open task, by the link
    reply.safetensors    the reply to it, by the trainer; kept until a later task
    counts.safetensors   the reply to `join`, which may come between a task and its repetition
    .held-...            a reply that the link may not have yet, or not now: the trainer's own, mode 0600
    paused               there while the site's operators have paused it: the link sends nothing
    link.json            what the link says of itself

Either side treats the other's files as a stranger's: a name out of a closed list, no link followed, size and SHA-256 of
what was read itself. Nothing is mapped: the other process could change or cut a mapped file after the check.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any

from client.handover.files import (
    CHUNK,
    MAX_FILE_BYTES,
    REPLY,
    TASK,
    FileName,
    Opened,
    Ref,
    ReplyFile,
    read_head,
    read_layout,
    reply_metrics,
    reply_texts,
    write_file,
)
from common.errors import WireError

SOCKET, LINK_STATUS, PAUSED = "trainer.sock", "link.json", "paused"
# Sticky: the link may put files there, and neither move nor remove the trainer's.
FOLDER_MODE, FILE_MODE, HELD_MODE, SOCKET_MODE = 0o1770, 0o640, 0o600, 0o660


class Mailbox:
    """The shared folder of one site.

    Args:
        home: The site's folder.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "shared"

    @property
    def socket(self) -> Path:
        """The trainer's socket."""
        return self.folder / SOCKET

    @property
    def link_status(self) -> Path:
        """What the link says of itself."""
        return self.folder / LINK_STATUS

    def make(self) -> None:
        """Make the folder if it is not there; one of this user's own gets its mode."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self.folder.stat()
        if about.st_uid == os.geteuid():
            # Beside what is there: an inherited group (set-group-ID) stays.
            self.folder.chmod(stat.S_IMODE(about.st_mode) | FOLDER_MODE)

    def put_task(self, assignment: bytes, arrays: Mapping[str, Any]) -> Ref:
        """Write the open task.

        Args:
            assignment: As it came (`common.manifests.Assignment`).
            arrays: Flat arrays by dtype, as bytes or as NumPy arrays; none for `join`.

        Raises:
            StorageError: It could not be written.
        """
        return self._put(TASK, {"assignment": assignment.decode("utf-8")}, arrays)

    def hold_reply(
        self,
        header: bytes,
        metrics: Mapping[str, float] | None,
        arrays: Mapping[str, Any],
        name: FileName = REPLY,
    ) -> Ref:
        """Write a reply: its signed header, its metrics unless it is an error, and its update if it has one.

        It stays out of the link's reach until `release`.

        Raises:
            StorageError: It could not be written.
        """
        texts = {"header": header.decode("utf-8"), **reply_texts(metrics)}
        nbytes, digest = write_file(self.path(name, held=True), texts, arrays, HELD_MODE)
        return Ref(name=name, nbytes=nbytes, digest=digest)

    def release(self, name: FileName) -> bool:
        """Let the link have a reply that was held; whether there was one."""
        held = self.path(name, held=True)
        try:
            handle = os.open(held, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                return False
            os.fchmod(handle, FILE_MODE)
        finally:
            os.close(handle)
        os.replace(held, self.folder / name)
        return True

    def withhold(self, name: FileName) -> bool:
        """Take a reply back before the link has opened it; whether there was one. Its bytes stay.

        A link that has it open can read on: it is told to let go by `PAUSED`.
        """
        held, shown = self.path(name, held=True), self.path(name)
        try:
            if held.exists():  # and newer
                shown.unlink()
            else:
                handle = os.open(shown, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    os.replace(shown, held)
                    if stat.S_ISREG(os.fstat(handle).st_mode):
                        os.fchmod(handle, HELD_MODE)
                finally:
                    os.close(handle)
        except FileNotFoundError:
            return False
        except OSError:
            # Not a file of the trainer's: whatever it is, it goes.
            with contextlib.suppress(OSError):
                shown.unlink()
        return True

    def discard(self, name: FileName) -> None:
        """Remove a reply that is held."""
        self.path(name, held=True).unlink(missing_ok=True)

    def say_paused(self, paused: bool) -> None:
        """Tell the link whether the site is paused; raises OSError."""
        path = self.folder / PAUSED
        if paused:
            path.touch(FILE_MODE)
        else:
            path.unlink(missing_ok=True)

    @property
    def paused(self) -> bool:
        """Whether the trainer says that the site is paused."""
        return (self.folder / PAUSED).exists()

    def path(self, name: FileName, held: bool = False) -> Path:
        """Where a file lies, or where it is held."""
        return self.folder / (f".held-{name}" if held else name)

    @contextlib.contextmanager
    def open(self, ref: Ref, held: bool = False) -> Iterator[Opened]:
        """A file of the mailbox, or the one that is held under its name.

        Raises:
            WireError: It is not there, not of the size that was named, or not well-formed.
        """
        with self._opened(self.path(ref.name, held).name) as file:
            size = os.fstat(file.fileno()).st_size
            if size != ref.nbytes:
                raise WireError(f"{ref.name} has {size} bytes, named were {ref.nbytes}")
            head = read_head(file, ref)
            metadata, sizes = read_layout(head[8:], size - len(head), ref.name)
            yield Opened(metadata, sizes, ref, head, file)

    def find(self, name: FileName, most: int = MAX_FILE_BYTES) -> Ref | None:
        """The file of that name as it lies there now, hashed; none when there is none (or nothing to trust).

        Args:
            name: Which.
            most: Bytes above which it is not even read: the other side may have put it there.
        """
        total = sha256()
        try:
            with self._opened(name) as file:
                if os.fstat(file.fileno()).st_size > most:
                    return None
                while chunk := file.read(CHUNK):
                    total.update(chunk)
                nbytes = file.tell()
        except WireError:
            return None
        return Ref(name=name, nbytes=nbytes, digest=total.hexdigest()) if nbytes else None

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BufferedReader]:
        try:
            # Without waiting: the name could be that of a pipe.
            handle = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise WireError(f"{name} cannot be opened: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise WireError(f"{name} is not a file")
        with os.fdopen(handle, "rb") as file:
            yield file

    def _put(
        self,
        name: FileName,
        texts: Mapping[str, str],
        arrays: Mapping[str, Any],
    ) -> Ref:
        nbytes, digest = write_file(self.folder / name, texts, arrays, FILE_MODE)
        return Ref(name=name, nbytes=nbytes, digest=digest)


def read_reply(mailbox: Mailbox, ref: Ref) -> ReplyFile:
    """A reply of the trainer; raises WireError unless it is whole and of a reply's form."""
    with mailbox.open(ref) as opened:
        if ref.name == TASK or not {"header"} <= set(opened.metadata) <= {"header", "metrics"}:
            raise WireError(f"{ref.name} is not a reply")
        return ReplyFile(opened.metadata["header"].encode(), reply_metrics(opened.metadata, ref.name), opened.arrays())
