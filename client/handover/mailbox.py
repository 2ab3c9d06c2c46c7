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
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from common.disk import write_whole
from common.errors import WireError
from common.records import Record, RecordError, Sha256, canonical_json, read_record

SOCKET, LINK_STATUS, PAUSED = "trainer.sock", "link.json", "paused"
FileName = Literal["task.safetensors", "reply.safetensors", "counts.safetensors"]
TASK: FileName = "task.safetensors"
REPLY: FileName = "reply.safetensors"
COUNTS: FileName = "counts.safetensors"
# Sticky: the link may put files there, and neither move nor remove the trainer's.
FOLDER_MODE, FILE_MODE, HELD_MODE, SOCKET_MODE = 0o1770, 0o640, 0o600, 0o660

# An assignment, its quotes escaped once more.
MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_FILE_BYTES = 1 << 42
_CHUNK = 4 << 20
# safetensors' names of the dtypes that cross; the last four in updates alone, if they are coded.
_CODES = {"int64": "I64", "float32": "F32", "uint32": "U32", "float16": "F16", "uint16": "U16", "int8": "I8"}

Arrays = dict[str, bytes]


class Ref(Record):
    """Names a file of the mailbox as it was when it was written.

    Attributes:
        name: Which file.
        nbytes: Its size.
        digest: Its SHA-256.
    """

    name: FileName
    nbytes: int = Field(ge=1, le=MAX_FILE_BYTES)
    digest: Sha256


@dataclass(frozen=True)
class Opened:
    """A file whose size fits and whose header was read; its arrays not yet.

    Attributes:
        metadata: The texts in it.
        sizes: Elements of each flat array, by dtype, in the file's order.
    """

    metadata: dict[str, str]
    sizes: dict[str, int]
    _ref: Ref
    _head: bytes
    _file: BufferedReader

    def chunks(self, most: int) -> Iterator[tuple[str, bytes]]:
        """The flat arrays piece by piece, each with its dtype and at most `most` bytes.

        Raises:
            WireError: At the end, unless the file is the one that was named: only then may the pieces be used.
        """
        total = sha256(self._head)
        self._file.seek(len(self._head))
        for dtype, n in self.sizes.items():
            left = n * np.dtype(dtype).itemsize
            while left:
                raw = self._file.read(min(most, left))
                if not raw:
                    raise WireError(f"{self._ref.name} was cut while it was read")
                total.update(raw)
                left -= len(raw)
                yield dtype, raw
        if total.hexdigest() != self._ref.digest:
            raise WireError(f"{self._ref.name} is not the file that was named: its SHA-256 is another one")

    def piece(self, start: int, nbytes: int) -> bytes:
        """Bytes of the arrays again, from `start` after the header; whoever uses them knows their hash."""
        return os.pread(self._file.fileno(), nbytes, len(self._head) + start)

    def arrays(self) -> Arrays:
        """The flat arrays by dtype, little-endian; raises WireError unless the file is the one that was named."""
        arrays = dict.fromkeys(self.sizes, b"")
        arrays |= dict(self.chunks(self._ref.nbytes))
        return arrays


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

    def put_reply(
        self,
        header: bytes,
        metrics: Mapping[str, float] | None,
        arrays: Mapping[str, Any],
        name: FileName = REPLY,
    ) -> Ref:
        """Write a reply: its signed header, its metrics unless it is an error, and its update if it has one.

        Raises:
            StorageError: It could not be written.
        """
        ref = self.hold_reply(header, metrics, arrays, name)
        self.release(name)
        return ref

    def hold_reply(
        self,
        header: bytes,
        metrics: Mapping[str, float] | None,
        arrays: Mapping[str, Any],
        name: FileName = REPLY,
    ) -> Ref:
        """As `put_reply`, but out of the link's reach until `release`."""
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
            head = _head(file, ref)
            metadata, sizes = _layout(head[8:], size - len(head), ref.name)
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
                while chunk := file.read(_CHUNK):
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


def reply_texts(metrics: Mapping[str, float] | None) -> dict[str, str]:
    """The metrics as a reply's file holds them; nothing for an error."""
    return {} if metrics is None else {"metrics": canonical_json(dict(metrics)).decode()}


def write_file(path: Path, texts: Mapping[str, str], arrays: Mapping[str, Any], mode: int) -> tuple[int, str]:
    """Write texts and flat arrays as one safetensors file; its size and SHA-256. Raises StorageError."""
    # Wide ones first: so each lies where its values are aligned.
    views = {d: memoryview(arrays[d]).cast("B") for d in sorted(arrays, key=list(_CODES).index)}
    head = file_head(texts, {d: v.nbytes for d, v in views.items()})
    total = sha256()

    def write(part: Path) -> None:
        part.unlink(missing_ok=True)
        # Anew: whoever else may write in this folder must not choose what is written over.
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            for view in (memoryview(head), *views.values()):
                for start in range(0, view.nbytes, _CHUNK):
                    total.update(view[start : start + _CHUNK])
                    file.write(view[start : start + _CHUNK])

    write_whole(path, write)
    return len(head) + sum(v.nbytes for v in views.values()), total.hexdigest()


class _Tensor(Record):
    dtype: Literal["I64", "F32", "U32", "F16", "U16", "I8"]
    shape: list[int] = Field(min_length=1, max_length=1)
    data_offsets: list[int] = Field(min_length=2, max_length=2)


class _Layout(Record):
    metadata: dict[str, str] = Field({}, alias="__metadata__", max_length=4)
    int64: _Tensor | None = None
    float32: _Tensor | None = None
    uint32: _Tensor | None = None
    float16: _Tensor | None = None
    uint16: _Tensor | None = None
    int8: _Tensor | None = None


def file_head(texts: Mapping[str, str], nbytes: Mapping[str, int]) -> bytes:
    """What safetensors puts in front: length and JSON, padded so that the values are aligned."""
    entries: dict[str, Any] = {"__metadata__": dict(texts)}
    start = 0
    for dtype, n in nbytes.items():
        shape = [n // np.dtype(dtype).itemsize]
        entries[dtype] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [start, start + n]}
        start += n
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _head(file: BufferedReader, ref: Ref) -> bytes:
    length = file.read(8)
    n = int.from_bytes(length, "little")
    if len(length) < 8 or n > min(MAX_HEADER_BYTES, ref.nbytes - 8):
        raise WireError(f"{ref.name}: its header is too long or the file too short")
    return length + file.read(n)


def _layout(text: bytes, room: int, name: str) -> tuple[dict[str, str], dict[str, int]]:
    """Texts and sizes, when the flat arrays fill the `room` after the header without gap or overlap."""
    try:
        layout = read_record(_Layout, text, MAX_HEADER_BYTES)
    except RecordError as error:
        raise WireError(f"{name}: its header {error}") from None
    found: dict[str, _Tensor] = {d: t for d in _CODES if (t := getattr(layout, d)) is not None}
    sizes, end = {}, 0
    for dtype, tensor in sorted(found.items(), key=lambda item: item[1].data_offsets[0]):
        start, stop = tensor.data_offsets
        (n,) = tensor.shape
        if tensor.dtype != _CODES[dtype] or start != end or n < 0 or stop - start != n * np.dtype(dtype).itemsize:
            raise WireError(f"{name}: array {dtype} does not lie where flat arrays do")
        sizes[dtype], end = n, stop
    if end != room:
        raise WireError(f"{name}: {room} bytes of arrays, its header names {end}")
    return layout.metadata, sizes


def read_reply(mailbox: Mailbox, ref: Ref) -> "ReplyFile":
    """A reply of the trainer; raises WireError unless it is whole and of a reply's form."""
    with mailbox.open(ref) as opened:
        if ref.name == TASK or not {"header"} <= set(opened.metadata) <= {"header", "metrics"}:
            raise WireError(f"{ref.name} is not a reply")
        return ReplyFile(opened.metadata["header"].encode(), reply_metrics(opened.metadata, ref.name), opened.arrays())


@dataclass(frozen=True)
class ReplyFile:
    """A reply as the trainer wrote it.

    Attributes:
        header: The signed header, as it goes to the coordinator.
        metrics: What goes with it; none with an error.
        arrays: The update, by dtype, little-endian; empty where there is none.
    """

    header: bytes
    metrics: dict[str, float] | None
    arrays: Arrays


def reply_metrics(metadata: Mapping[str, str], name: str) -> dict[str, float] | None:
    """The metrics among a reply's texts, none for an error; raises WireError."""
    if "metrics" not in metadata:
        return None
    try:
        found = json.loads(metadata["metrics"])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in found.values()
    ):
        raise WireError(f"{name}: its metrics are not numbers")
    return found
