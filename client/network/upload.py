"""A reply from the trainer's file to the coordinator's objects, with one chunk of it in memory."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from client.handover.files import Opened, Ref, reply_metrics
from client.handover.mailbox import Mailbox
from client.network.objects import CHUNK, Flat, Thing, chunk_name, flat_thing, head, holder, name_of
from client.network.things import config_thing, metrics_thing
from common.errors import WireError


@dataclass(frozen=True)
class _Piece:
    start: int
    nbytes: int


class Reply:
    """A reply of the trainer, whose objects are named and can be had one by one. Close it.

    The file stays as it was opened, whatever the trainer puts in its place.

    Args:
        mailbox: Where it lies.
        ref: What it was named.

    Attributes:
        ref: The file.
        content: The object that holds the others.

    Raises:
        WireError: The file is not the one that was named, or not a reply.
    """

    def __init__(self, mailbox: Mailbox, ref: Ref) -> None:
        self.ref = ref
        self._chunks: dict[str, _Piece] = {}
        self._small: dict[str, Thing] = {}
        with ExitStack() as stack:
            self._file = stack.enter_context(mailbox.open(ref))
            if not {"header"} <= set(self._file.metadata) <= {"header", "metrics"}:
                raise WireError(f"{ref.name} is not a reply")
            parts = {"header": config_thing({"header": self._file.metadata["header"].encode()})}
            metrics = reply_metrics(self._file.metadata, ref.name)
            if metrics is not None:
                parts["metrics"] = metrics_thing(metrics)
            flats = self._flats(self._file)
            if flats:
                arrays = {flat.dtype: flat_thing(flat) for flat in flats}
                parts["arrays"] = holder("ArrayRecord", arrays)
                self._keep(*arrays.values())
            self.content = holder("RecordDict", parts)
            self._keep(*parts.values(), self.content)
            self._stack = stack.pop_all()

    def _flats(self, file: Opened) -> list[Flat]:
        chunks: dict[str, list[str]] = {dtype: [] for dtype in file.sizes}
        start = 0
        for dtype, raw in file.chunks(CHUNK):
            name = chunk_name(memoryview(raw))
            chunks[dtype].append(name)
            self._chunks[name] = _Piece(start, len(raw))
            start += len(raw)
        return [Flat(dtype, size, tuple(chunks[dtype])) for dtype, size in file.sizes.items()]

    def _keep(self, *things: Thing) -> None:
        self._small.update((name_of(thing.content()), thing) for thing in things)

    @property
    def names(self) -> list[str]:
        """Names of all its objects; the small ones last."""
        return [*self._chunks, *self._small]

    def pieces(self, name: str) -> list[bytes]:
        """An object, in pieces."""
        if name in self._small:
            return [self._small[name].content()]
        piece = self._chunks[name]
        data = self._file.piece(piece.start, piece.nbytes)
        return [head("ArrayChunk", (), len(data)), data]

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
