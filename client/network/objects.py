"""Messages as the objects that cross: each named by the SHA-256 of `KIND CHILD,CHILD LENGTH`, a zero byte, its body.

Only what a site needs: the parts of a task are read with every size held against what was declared, and a reply is
named chunk by chunk without being in memory.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeGuard

import numpy as np

from common.errors import WireError

CHUNK = 5 * 1024 * 1024  # bytes into which Flower cuts tensors
MAX_SMALL = 16 * 1024 * 1024  # bytes of an object that is no chunk; the longest assignment is one
MAX_ARRAYS = 4 * 1024**3  # bytes of a task's arrays: a thousand million parameters
DTYPES = ("int64", "float32")  # in the order in which they lie in files
STYPE = "fedscan.flat"
_ID = re.compile(r"[0-9a-f]{64}")
_HEAD = 128 * 1024  # bytes of an object's head
_JSON = 64 * 1024  # bytes of JSON, ten times what the largest array needs; parsed, it may be thirty times as large


@dataclass(frozen=True)
class Thing:
    """An object that is no chunk.

    Attributes:
        kind: Its class at Flower.
        children: Names of the objects that it holds.
        body: What it says itself.
    """

    kind: str
    children: tuple[str, ...]
    body: bytes

    def content(self) -> bytes:
        """As it crosses."""
        return head(self.kind, self.children, len(self.body)) + self.body


@dataclass(frozen=True)
class Flat:
    """A flat array by its chunks.

    Attributes:
        dtype: Its dtype's name.
        size: Its elements.
        chunks: Names of its chunks, in order.
    """

    dtype: str
    size: int
    chunks: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return self.size * np.dtype(self.dtype).itemsize

    def pieces(self) -> Iterator[tuple[str, int]]:
        """Name and bytes of each chunk, in order."""
        for i, chunk in enumerate(self.chunks):
            yield chunk, min(CHUNK, self.nbytes - i * CHUNK)


def head(kind: str, children: Iterable[str], length: int) -> bytes:
    """What stands before an object's body."""
    return f"{kind} {','.join(children)} {length}".encode() + b"\0"


def name_of(content: bytes | memoryview) -> str:
    """The name of an object."""
    return sha256(content).hexdigest()


def chunk_name(data: memoryview) -> str:
    """The name of a chunk with these bytes."""
    total = sha256(head("ArrayChunk", (), data.nbytes))
    total.update(data)
    return total.hexdigest()


def read_thing(object_id: str, content: memoryview, kind: str) -> Thing:
    """An object that should be of `kind`; raises WireError unless it is, and is what its name says."""
    if name_of(content) != object_id:
        raise WireError("an object of the task is not what its name says")
    front, zero, _ = bytes(content[:_HEAD]).partition(b"\0")
    try:
        found, children, length = front.decode("ascii").split(" ")
        names = tuple(children.split(",")) if children else ()
        fits = int(length) == content.nbytes - len(front) - 1
    except ValueError:
        raise WireError("an object of the task has no head") from None
    if not zero or found != kind or not fits or not all(_ID.fullmatch(name) for name in names):
        raise WireError(f"an object of the task is no {kind}")
    return Thing(kind, names, bytes(content[len(front) + 1 :]))


def references(thing: Thing, allowed: Iterable[str]) -> dict[str, str]:
    """What a RecordDict or an ArrayRecord names; raises WireError unless it names some of `allowed`, each once."""
    named = _json(thing)
    if not set(named) <= set(allowed) or not all(isinstance(v, str) for v in named.values()):
        raise WireError(f"the task's {thing.kind} holds what a task does not hold")
    if sorted(set(named.values())) != sorted(thing.children) or len(set(thing.children)) != len(named):
        raise WireError(f"the task's {thing.kind} names other objects than it holds")
    return named


def read_flat(thing: Thing, dtype: str) -> Flat:
    """An array whose declared size is the only one that its chunks can have; raises WireError."""
    about = _json(thing)
    shape, order = about.get("shape"), about.get("arraychunk_ids")
    if about.get("dtype") != dtype or about.get("stype") != STYPE or not _counts(shape) or len(shape) != 1:
        raise WireError(f"the task's {dtype} array is not flat")
    nbytes = shape[0] * np.dtype(dtype).itemsize
    if nbytes > MAX_ARRAYS:
        raise WireError(f"the task declares an array of {nbytes} bytes; at most {MAX_ARRAYS} are taken")
    if not _counts(order) or len(order) != math.ceil(nbytes / CHUNK) or set(order) != set(range(len(thing.children))):
        raise WireError(f"the task's {dtype} array is put together otherwise than its size says")
    return Flat(dtype, shape[0], tuple(thing.children[i] for i in order))


def flat_thing(flat: Flat) -> Thing:
    """The object of an array."""
    unique = tuple(dict.fromkeys(flat.chunks))
    place = {name: i for i, name in enumerate(unique)}
    order = [place[name] for name in flat.chunks]
    about = {"dtype": flat.dtype, "shape": [flat.size], "stype": STYPE, "arraychunk_ids": order}
    return Thing("Array", unique, json.dumps(about).encode())


def holder(kind: str, parts: Mapping[str, Thing]) -> Thing:
    """A RecordDict or an ArrayRecord of `parts`."""
    names = {key: name_of(part.content()) for key, part in parts.items()}
    return Thing(kind, tuple(dict.fromkeys(names.values())), json.dumps(names).encode())


def _counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _json(thing: Thing) -> dict[str, Any]:
    try:
        found = json.loads(thing.body) if len(thing.body) <= _JSON else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WireError(f"the task's {thing.kind} cannot be read")
    return found
