"""Where the bodies of requests wait until they are whole: a few places in memory, disk for all others.

So the memory of a coordinator is the same however many sites send, and however slowly they do.
"""

from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

_SMALL = 64 * 1024  # bytes of a body that need no place


class Bodies:
    """Places for large bodies. They are made when they are first needed and used again and again.

    Fresh memory for each body would cost as much as all that is done with it: the system clears every page.

    Args:
        places: How many there are.
        size: Bytes of each.
        folder: Where bodies wait that find none.
    """

    def __init__(self, places: int, size: int, folder: Path) -> None:
        self._left = places
        self._size = size
        self._free: list[bytearray] = []
        self._folder = folder

    def begin(self) -> "Body":
        """A body of which nothing has come yet."""
        return Body(self)

    def take(self) -> bytearray | None:
        """A place, if one is free."""
        if self._free:
            return self._free.pop()
        if not self._left:
            return None
        self._left -= 1
        return bytearray(self._size)

    def give_back(self, place: bytearray) -> None:
        """A place is free again."""
        self._free.append(place)

    def file(self) -> IO[bytes]:
        """A file without a name."""
        return TemporaryFile(dir=self._folder)


class Body:
    """One body, as a context manager; what was seen of it is not valid afterwards.

    Args:
        bodies: Where it may wait.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._small = bytearray()
        self._place: bytearray | None = None
        self._file: IO[bytes] | None = None
        self._users = 1
        self.length = 0

    def share(self) -> Self:
        """Another user of it, who closes it as well."""
        self._users += 1
        return self

    def write(self, data: bytes) -> None:
        """Add what has come; raises OSError where the disk does not take it."""
        if self._place is None and self._file is None:
            if len(self._small) + len(data) <= _SMALL:
                self._small += data
                self.length += len(data)
                return
            self._move()
        if self._place is not None:
            self._place[self.length : self.length + len(data)] = data
        elif self._file is not None:
            self._file.write(data)
        self.length += len(data)

    def _move(self) -> None:
        self._place = self._bodies.take()
        if self._place is not None:
            self._place[: len(self._small)] = self._small
        else:
            self._file = self._bodies.file()
            self._file.write(self._small)
        self._small = bytearray()

    def whole(self) -> memoryview:
        """All of it, valid until this is closed; raises OSError where it cannot be read back."""
        if self._file is not None:
            self._file.seek(0)
            return memoryview(self._file.read())
        return memoryview(self._small if self._place is None else self._place)[: self.length].toreadonly()

    def close(self) -> None:
        """Let go of it; the last user does so to its memory."""
        self._users -= 1
        if self._users > 0:
            return
        if self._place is not None:
            self._bodies.give_back(self._place)
            self._place = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
