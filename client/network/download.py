"""A task from the coordinator's objects to the file that the trainer gets, with one chunk of it in memory.

The file is filled from front to back under a name of its own. What is there already, from an attempt that broke off
or in the task before, is not asked for again: a chunk is known by its hash, wherever it lies.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from client.handover.files import TASK, Ref, file_head
from client.handover.mailbox import FILE_MODE, Mailbox
from client.network.objects import (
    DTYPES,
    MAX_ARRAYS,
    Flat,
    chunk_name,
    head,
    name_of,
    read_flat,
    read_thing,
    references,
)
from client.network.things import read_config
from common.disk import not_written
from common.errors import StorageError, WireError

_SPARE = 64 * 1024 * 1024  # bytes of the disk that stay free

Pull = Callable[[str, bool], memoryview]
"""Gets an object by its name; True for one that is no chunk."""


@dataclass(frozen=True)
class Layout:
    """What a task consists of.

    Attributes:
        assignment: The signed assignment, as it came.
        flats: Its arrays, in the order in which they lie in the file; none for `join`.
    """

    assignment: bytes
    flats: tuple[Flat, ...]


@dataclass(frozen=True)
class Fetched:
    """A task that is on disk and whole.

    Attributes:
        ref: The file.
        places: Where in it each chunk lies.
    """

    ref: Ref
    places: Mapping[str, int]


def read_layout(pull: Pull, content: str) -> Layout:
    """What the task with this content consists of; raises WireError when it is no task, or too large."""
    parts = references(read_thing(content, pull(content, True), "RecordDict"), ("assignment", "arrays"))
    if "assignment" not in parts:
        raise WireError("the task comes without an assignment")
    config = read_thing(parts["assignment"], pull(parts["assignment"], True), "ConfigRecord")
    flats = []
    if "arrays" in parts:
        arrays = references(read_thing(parts["arrays"], pull(parts["arrays"], True), "ArrayRecord"), DTYPES)
        for dtype in (d for d in DTYPES if d in arrays):
            flats.append(read_flat(read_thing(arrays[dtype], pull(arrays[dtype], True), "Array"), dtype))
    total = sum(flat.nbytes for flat in flats)
    if total > MAX_ARRAYS:
        raise WireError(f"the task declares {total} bytes of arrays; at most {MAX_ARRAYS} are taken")
    return Layout(read_config(config, "assignment"), tuple(flats))


def fetch(pull: Pull, layout: Layout, mailbox: Mailbox, known: Mapping[str, int]) -> Fetched:
    """Put the task into the mailbox.

    A power cut may leave a file of that name with other bytes: it is never used before its hash was compared.

    Args:
        pull: Gets what is not there yet.
        layout: What the task consists of.
        mailbox: Where it goes.
        known: Where chunks lie in the task that is in the mailbox now.

    Raises:
        WireError: A chunk is not what its name or the array's size says.
        StorageError: The disk is full or refuses; what was there before is still there.
        LinkError: As `pull` raises it; the next attempt goes on from here.
    """
    try:
        front = file_head({"assignment": layout.assignment.decode("utf-8")}, {f.dtype: f.nbytes for f in layout.flats})
    except UnicodeDecodeError:
        raise WireError("the task's assignment is no text") from None
    path, part = mailbox.folder / TASK, mailbox.folder / f".{TASK}.part"
    try:
        with _open(part) as new, _open_old(path) as old:
            work = _Filling(pull, front, new, old, known)
            work.need_room(mailbox.folder, sum(f.nbytes for f in layout.flats))
            for flat in layout.flats:
                for chunk, nbytes in flat.pieces():
                    work.add(chunk, nbytes)
            ref = work.finish()
        os.replace(part, path)
    except OSError as error:
        raise not_written(path, error) from None
    return Fetched(ref, work.places)


class _Filling:
    """The file as it is filled."""

    def __init__(self, pull: Pull, front: bytes, new: int, old: int | None, known: Mapping[str, int]) -> None:
        self._pull = pull
        self._new = new
        self._old = old
        self._known = known
        self._total = sha256(front)
        self._at = len(front)
        self._there = os.fstat(new).st_size  # bytes from the front on that an earlier attempt may have left
        self.places: dict[str, int] = {}
        if os.pread(new, len(front), 0) != front:
            self._forget(0)
            _write(new, memoryview(front), 0)

    def need_room(self, folder: Path, nbytes: int) -> None:
        free = shutil.disk_usage(folder).free
        missing = nbytes - max(self._there - self._at, 0) + _SPARE
        if free < missing:
            raise StorageError(
                f"{folder} has {free >> 20} MiB left, the task needs {missing >> 20} MiB: make room there"
            )

    def add(self, chunk: str, nbytes: int) -> None:
        data = self._left_there(chunk, nbytes) or self._elsewhere(chunk, nbytes)
        if data is None:
            self._forget(self._at)
            data = self._pulled(chunk, nbytes)
            _write(self._new, data, self._at)
        elif self._at + nbytes > self._there:
            _write(self._new, data, self._at)
        self._total.update(data)
        self.places[chunk] = self._at
        self._at += nbytes

    def finish(self) -> Ref:
        os.ftruncate(self._new, self._at)
        return Ref(name=TASK, nbytes=self._at, digest=self._total.hexdigest())

    def _left_there(self, chunk: str, nbytes: int) -> memoryview | None:
        if self._at + nbytes > self._there:
            return None
        data = _right(chunk, os.pread(self._new, nbytes, self._at))
        if data is None:
            self._forget(self._at)
        return data

    def _elsewhere(self, chunk: str, nbytes: int) -> memoryview | None:
        if chunk in self.places:
            return _right(chunk, os.pread(self._new, nbytes, self.places[chunk]))
        if self._old is not None and chunk in self._known:
            return _right(chunk, os.pread(self._old, nbytes, self._known[chunk]))
        return None

    def _pulled(self, chunk: str, nbytes: int) -> memoryview:
        content, front = self._pull(chunk, False), head("ArrayChunk", (), nbytes)
        if name_of(content) != chunk:
            raise WireError("a chunk of the task is not what its name says")
        if bytes(content[: len(front)]) != front or content.nbytes != len(front) + nbytes:
            raise WireError("a chunk of the task is not as long as the array's size says")
        return content[len(front) :]

    def _forget(self, at: int) -> None:
        """What lies behind `at` is of no use."""
        if self._there > at:
            os.ftruncate(self._new, at)
            self._there = at


def _right(chunk: str, data: bytes) -> memoryview | None:
    view = memoryview(data)
    return view if data and chunk_name(view) == chunk else None


def _write(handle: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(handle, data, at)
        data, at = data[written:], at + written


@contextmanager
def _open(part: Path) -> Iterator[int]:
    """The file to fill, with what an earlier attempt left; never a file that somebody else put there."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    handle = -1
    with suppress(OSError):
        handle = os.open(part, flags)
    if handle >= 0 and not _ours(handle):
        os.close(handle)
        handle = -1
    if handle < 0:
        part.unlink(missing_ok=True)
        handle = os.open(part, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
        os.fchmod(handle, FILE_MODE)
    try:
        yield handle
    finally:
        os.close(handle)


def _ours(handle: int) -> bool:
    about = os.fstat(handle)
    return stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_uid == os.geteuid()


@contextmanager
def _open_old(path: Path) -> Iterator[int | None]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)
