"""The task that the link has open, as it is noted on disk: a restarted link goes on with it."""

import os
from pathlib import Path

from pydantic import Field

from client.handover.files import Ref
from common.disk import not_written
from common.errors import FedscanError
from common.keys import PRIVATE
from common.manifests import RoundManifest, read_assignment
from common.records import Record, RecordError, Sha256, read_record

_NAMED = 1024 * 1024  # bytes of an assignment whose task is named in the status
_NOTE_BYTES = 4096


class OpenTask(Record):
    """The open task (HOME/link/open.json).

    Attributes:
        content: Name of its message's content: equal for the same task in another message.
        task: Its file.
        name: Run, round and kind, for people.
        delivered: Whether its reply was; the trainer is not asked again then.
    """

    content: Sha256
    task: Ref
    name: str = Field(max_length=300)
    delivered: bool = False


class OpenNote:
    """The note of one link.

    Args:
        path: Its file, in a folder that only the link writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> OpenTask | None:
        """What an earlier process noted; none if nothing that can be read."""
        try:
            return read_record(OpenTask, self._path.read_bytes(), _NOTE_BYTES)
        except (OSError, RecordError):
            return None

    def write(self, task: OpenTask) -> None:
        """Note the open task. After a power cut the note may be an old one: the task's file is held against it.

        Raises:
            StorageError: The disk is full.
        """
        part = self._path.with_suffix(".part")
        try:
            with open(part, "wb", opener=_private) as file:
                file.write(task.canonical())
            os.replace(part, self._path)
        except OSError as error:
            raise not_written(self._path, error) from None


def task_name(assignment: bytes) -> str:
    """Run, round and kind of a task as its manifest says, for people: it is the trainer who verifies it."""
    if len(assignment) > _NAMED:
        return "of a long run"
    try:
        body = read_assignment(assignment).manifest.body.encode()
        return read_record(RoundManifest, body, len(assignment)).task
    except (FedscanError, RecordError):
        return "that cannot be read"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, PRIVATE)
