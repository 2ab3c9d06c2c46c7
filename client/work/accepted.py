"""What this site accepted last of each run, on disk: the memory against replays and forks."""

from pathlib import Path

from common.chain import KnownRuns
from common.disk import write_whole
from common.errors import CheckpointError
from common.records import RecordError, read_record

MAX_BYTES = 64 * 1024 * 1024  # hundreds of thousands of runs


class AcceptedRuns:
    """The file in which a trainer keeps what `common.chain.Checker` tells it to.

    Args:
        path: The file; a missing one knows no run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self) -> KnownRuns:
        """What is on disk; raises CheckpointError when it is damaged, because nothing could be told from a replay."""
        if not self._path.exists():
            return KnownRuns()
        try:
            return read_record(KnownRuns, self._path.read_bytes(), MAX_BYTES)
        except RecordError:
            raise CheckpointError(
                f"{self._path} is damaged; put it back from a backup. Without it old tasks would be taken for new ones"
            ) from None

    def keep(self, known: KnownRuns) -> None:
        """Put `known` on the disk, before its task begins; raises StorageError."""
        write_whole(self._path, lambda part: part.write_bytes(known.canonical() + b"\n"))
