"""The files of the mailbox: safetensors, a few texts and one flat array per dtype; read as a stranger wrote them."""

import json
import math
import os
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

FileName = Literal["task.safetensors", "reply.safetensors", "counts.safetensors"]
TASK: FileName = "task.safetensors"
REPLY: FileName = "reply.safetensors"
COUNTS: FileName = "counts.safetensors"

# An assignment, its quotes escaped once more.
MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_FILE_BYTES = 1 << 42
CHUNK = 4 << 20
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
                for start in range(0, view.nbytes, CHUNK):
                    total.update(view[start : start + CHUNK])
                    file.write(view[start : start + CHUNK])

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


def read_head(file: BufferedReader, ref: Ref) -> bytes:
    """The bytes before the arrays; raises WireError when they cannot be that long."""
    length = file.read(8)
    n = int.from_bytes(length, "little")
    if len(length) < 8 or n > min(MAX_HEADER_BYTES, ref.nbytes - 8):
        raise WireError(f"{ref.name}: its header is too long or the file too short")
    return length + file.read(n)


def read_layout(text: bytes, room: int, name: str) -> tuple[dict[str, str], dict[str, int]]:
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
