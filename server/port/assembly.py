"""From a site's uploaded objects to one message, without a copy beside the tensors themselves.

Flower's own way back from objects trusts what they say: one chunk that is named a thousand times becomes a thousand
chunks of memory. Here the size of everything is known, and held against the task's allowance, before it exists.
"""

import json
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from google.protobuf.message import DecodeError

from common.errors import WireError
from server.port.inbox import Allowance, Upload

SMALL = 64 * 1024  # bytes of an object that is no chunk of a tensor
# What each kind of object may hold; the depth of a reply is bounded by it.
_KINDS: dict[str, type[Any]] = {
    "Message": Message,
    "RecordDict": RecordDict,
    "ArrayRecord": ArrayRecord,
    "ConfigRecord": ConfigRecord,
    "MetricRecord": MetricRecord,
}
_HOLDS: dict[str, frozenset[str]] = {
    "Message": frozenset({"RecordDict"}),
    "RecordDict": frozenset({"ArrayRecord", "ConfigRecord", "MetricRecord"}),
    "ArrayRecord": frozenset({"Array"}),
}
_NAMES = frozenset({*_KINDS, "Array", "ArrayChunk"})
_NONE: frozenset[str] = frozenset()
_BAD = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, DecodeError)


def assemble(upload: Upload, allowance: Allowance) -> Message:
    """The message that a whole upload holds; only its content or error may be trusted to be the site's word.

    Raises:
        WireError: The objects do not make a message within the allowance.
    """
    work = _Assembly(upload, allowance)
    try:
        message = work.build(upload.root, frozenset({"Message"}))
    except _BAD as error:
        raise WireError(f"the reply's objects make no message: {type(error).__name__}") from None
    if work.used != upload.ids:
        raise WireError("the reply was sent with objects that it does not hold")
    assert isinstance(message, Message)  # noqa: S101 - by the kind that was asked for
    return message


class _Assembly:
    def __init__(self, upload: Upload, allowance: Allowance) -> None:
        self._upload = upload
        self._room = allowance.tensors
        self._pieces = allowance.objects
        self._built: dict[str, Any] = {}
        self._data: dict[str, bytearray] = {}
        self.used: set[str] = set()

    def build(self, object_id: str, kinds: frozenset[str]) -> Any:
        # Each object once: a few that name each other a thousand times would be a million.
        if object_id in self._built and type(self._built[object_id]).__name__ in kinds:
            return self._built[object_id]
        kind, children, content = self._small(object_id)
        if kind not in kinds:
            # A kind that nobody knows is the site's own text.
            found = kind if kind in _NAMES else "an unknown object"
            raise WireError(f"the reply holds {found} where {' or '.join(sorted(kinds)) or 'nothing'} may be")
        self._built[object_id] = self._make(object_id, kind, children, content)
        return self._built[object_id]

    def _make(self, object_id: str, kind: str, children: list[str], content: bytes) -> Any:
        if kind == "Array":
            self._data[object_id] = self._tensor(children, content)
            return _form(content)
        parts = {child: self.build(child, _HOLDS.get(kind, _NONE)) for child in dict.fromkeys(children)}
        made = _KINDS[kind].inflate(content, parts)
        if kind == "ArrayRecord":
            # Flower's record takes over forms only; their bytes would be copied.
            for name, array in json.loads(content.partition(b"\0")[2]).items():
                made[name].data = self._data[array]
        return made

    def _tensor(self, children: list[str], content: bytes) -> bytearray:
        """The bytes of a tensor, read from its chunks straight to where they belong."""
        order = json.loads(content.partition(b"\0")[2])["arraychunk_ids"]
        if not all(type(i) is int and 0 <= i < len(children) for i in order):
            raise WireError("a tensor names chunks that it does not have")
        self._pieces -= len(order)
        if self._pieces < 0:
            raise WireError("the reply's tensors are put together of too many pieces")
        heads = [self._chunk_head(child) for child in children]
        total = sum(self._upload.sizes[children[i]] - heads[i] for i in order)
        if total > self._room:
            raise WireError(f"the reply's tensors would have {total} bytes or more, the task allows {self._room}")
        self._room -= total
        data = bytearray(total)
        view, at = memoryview(data), 0
        for i in order:
            size = self._upload.sizes[children[i]] - heads[i]
            with self._upload.path(children[i]).open("rb") as file:
                file.seek(heads[i])
                if file.readinto(view[at : at + size]) != size:
                    raise WireError("a chunk is shorter than it was when it came")
            at += size
        return data

    def _chunk_head(self, object_id: str) -> int:
        """Bytes of a chunk before its data."""
        self._use(object_id)
        with self._upload.path(object_id).open("rb") as file:
            kind, children, length = _head(file.read(200))
        if kind != "ArrayChunk" or children:
            raise WireError("a tensor's chunk is no chunk")
        return length

    def _small(self, object_id: str) -> tuple[str, list[str], bytes]:
        self._use(object_id)
        if self._upload.sizes[object_id] > SMALL:
            raise WireError(f"an object that is no chunk has {self._upload.sizes[object_id]} bytes")
        content = self._upload.path(object_id).read_bytes()
        kind, children, _ = _head(content)
        return kind, children, content

    def _use(self, object_id: str) -> None:
        if object_id not in self._upload.sizes:
            raise WireError("the reply holds an object that was not sent")
        self.used.add(object_id)


def _form(content: bytes) -> Array:
    """A tensor without its bytes."""
    about = json.loads(content.partition(b"\0")[2])
    return Array(str(about["dtype"]), tuple(int(n) for n in about["shape"]), str(about["stype"]), b"")


def _head(content: bytes) -> tuple[str, list[str], int]:
    """Kind, children and length of an object's head, which is `KIND CHILD,CHILD LENGTH` and a zero byte."""
    head, zero, _ = content.partition(b"\0")
    if not zero:
        raise WireError("an object has no head")
    kind, children, _ = head.decode("ascii").split(" ")
    return kind, children.split(",") if children else [], len(head) + 1
