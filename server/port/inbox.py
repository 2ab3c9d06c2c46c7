"""The replies that sites are uploading, on disk object by object: memory stays the same however many sites upload.

Each open task has one place here, with an allowance that counts everything ever pushed for it. An object is named by
the SHA-256 of its bytes, but a site is only ever told about objects that it sent itself, for this very task: nobody
can find out by guessing a hash what another site has sent.
"""

import hashlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common.disk import not_written
from common.errors import FedscanError

OBJECT_ID = re.compile(r"[0-9a-f]{64}")
_OVERHEAD = 64 * 1024  # bytes of a reply beside its tensors
_AGAIN = 3  # how often all bytes of a reply may be sent, when connections break or a site starts again
_REPLIES = 16  # different replies that may be begun


class Refused(FedscanError):  # noqa: N818 - it is an answer
    """What a site asked for is not done.

    Attributes:
        status: The HTTP status that says so.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Allowance:
    """What one reply may weigh.

    Attributes:
        tensors: Bytes of its tensors once put together.
    """

    tensors: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its objects."""
        return self.tensors + self.tensors // 1024 + _OVERHEAD

    @property
    def objects(self) -> int:
        """How many objects it may be cut into."""
        return 32 + self.tensors // (1 << 20)


@dataclass
class Upload:
    """One reply: which objects it has, which of them are there."""

    root: str
    ids: frozenset[str]
    folder: Path
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Objects that have not come yet, in a fixed order."""
        return sorted(self.ids - self.sizes.keys())

    def path(self, object_id: str) -> Path:
        """The file of an object of this upload."""
        return self.folder / object_id


@dataclass
class _Place:
    allowance: Allowance
    folder: Path
    spent: int = 0
    begun: int = 0
    upload: Upload | None = None


class Inbox:
    """Places for the replies of all open tasks.

    Args:
        folder: Where objects lie until their reply is taken; what an earlier process left there is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._sessions: dict[str, tuple[_Place, Upload]] = {}
        self._lock = threading.Lock()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise not_written(folder, error) from None

    def expect(self, task: str, allowance: Allowance) -> None:
        """Open a place for the reply to `task`."""
        with self._lock:
            self._places[task] = _Place(allowance, self._folder / uuid.uuid4().hex)

    def begin(self, task: str, root: str, ids: Iterable[str]) -> Upload:
        """A site says which objects its reply has. The same reply goes on where it stopped; another one replaces it.

        Raises:
            Refused: No such task is open, or the reply is not of a form that is taken.
        """
        names = frozenset(ids)
        if root not in names or not all(OBJECT_ID.fullmatch(name) for name in names):
            raise Refused(400, "the reply's objects are not named by their hashes")
        with self._lock:
            upload, old = self._begin(task, root, names)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        return upload

    def _begin(self, task: str, root: str, names: frozenset[str]) -> tuple[Upload, Path | None]:
        """The upload, and the folder of the one that it replaces."""
        place = self._places.get(task)
        if place is None:
            raise Refused(410, "this task is not open any more")
        if len(names) > place.allowance.objects:
            raise Refused(413, f"{len(names)} objects, the task allows {place.allowance.objects}")
        if place.upload is not None and place.upload.root == root:
            if place.upload.ids != names:
                raise Refused(409, "the same reply was announced with other objects")
            return place.upload, None
        if place.begun >= _REPLIES:
            raise Refused(413, "too many different replies to one task")
        upload = Upload(root, names, place.folder / str(place.begun + 1))
        try:
            upload.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(503, str(not_written(upload.folder, error))) from None
        old = self._drop_upload(place)
        place.begun += 1
        place.upload = upload
        self._sessions[upload.session] = (place, upload)
        return upload, old

    def put(self, task: str, session: str, object_id: str, content: bytes | memoryview) -> None:
        """Take one object. Sending one again does no harm and costs nothing.

        Raises:
            Refused: It was not announced, is not what its name says, or is more than the task's allowance.
        """
        with self._lock:
            place, upload = self._sessions.get(session, (None, None))
            if place is None or upload is None or self._places.get(task) is not place:
                raise Refused(410, "this upload is over: announce the reply again")
            if object_id not in upload.ids:
                raise Refused(403, "the object was not announced")
            if object_id in upload.sizes:
                return
            if place.spent + len(content) > _AGAIN * place.allowance.nbytes:
                raise Refused(413, f"more than {_AGAIN} times the bytes that the task's reply can have")
            if sum(upload.sizes.values()) + len(content) > place.allowance.nbytes:
                raise Refused(413, f"the reply has more than {place.allowance.nbytes} bytes")
            place.spent += len(content)
        if hashlib.sha256(content).hexdigest() != object_id:
            raise Refused(400, "the object is not what its name says")
        part = upload.folder / f"{object_id}.{uuid.uuid4().hex}"
        try:
            part.write_bytes(content)
            os.replace(part, upload.path(object_id))
        except FileNotFoundError:
            raise Refused(410, "this upload is over: announce the reply again") from None
        except OSError as error:
            raise Refused(503, str(not_written(part, error))) from None
        with self._lock:
            upload.sizes[object_id] = len(content)

    def whole(self, task: str) -> Upload | None:
        """The reply to `task`, once all of it is there."""
        with self._lock:
            place = self._places.get(task)
            if place is None or place.upload is None or place.upload.missing:
                return None
            return place.upload

    def close(self, task: str) -> None:
        """Remove the place of `task` and what lies there."""
        with self._lock:
            place = self._places.pop(task, None)
            if place is not None:
                self._drop_upload(place)
        if place is not None:
            shutil.rmtree(place.folder, ignore_errors=True)

    def _drop_upload(self, place: _Place) -> Path | None:
        """Forget an upload; its folder, which is to be removed once nobody waits for the lock."""
        if place.upload is None:
            return None
        folder = place.upload.folder
        self._sessions.pop(place.upload.session, None)
        place.upload = None
        return folder
