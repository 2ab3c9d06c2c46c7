"""The replies of the open round, on disk as they arrive.

A reply is written before it counts, so a restarted coordinator asks only for those that it does not have. It is read
back in slices, so folding needs the memory of no update at all.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.disk import write_whole
from common.errors import CheckpointError
from common.wire import Flat, Schema

_FORMATS = {"float32": "F32", "int64": "I64"}  # safetensors' names


@dataclass(frozen=True)
class Reply:
    """One site's spooled update: metrics in memory, tensors on disk.

    Attributes:
        site: Whose it is.
        path: Where the tensors lie.
        metrics: What came with them.
        starts: At which byte of the file each flat array begins.
        digest: Hash by which later tasks name the reply, where replies are signed.
    """

    site: str
    path: Path
    metrics: dict[str, float]
    starts: Mapping[str, int]
    digest: str | None = None

    def read(self, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """Elements `start` … `stop` of the flat array of `dtype`; raises CheckpointError when they are not there."""
        values = np.empty(stop - start, np.dtype(dtype).newbyteorder("<"))
        # Not by safe_open: it maps the file, and the page faults of each slice take longer than a copy of its values.
        with self.path.open("rb") as file:
            file.seek(self.starts[dtype] + start * values.itemsize)
            if file.readinto(values) < values.nbytes:  # type: ignore[arg-type]
                raise CheckpointError(f"{self.path} ends too early; put the run's folder back")
        return values


class Spool:
    """The replies of one round.

    Args:
        folder: The run's spool folder.
        schema: What a whole reply holds; anything else on disk is a torn write and does not count.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._folder = folder
        self._schema = schema

    def _path(self, number: int, site: str) -> Path:
        return self._folder / f"round-{number:05d}" / f"{site}.safetensors"

    def _closed(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}" / "closed.json"

    def add(self, number: int, site: str, flat: Flat, metrics: Mapping[str, float], digest: str | None = None) -> None:
        """Write a site's reply; it is there whole, or not at all."""
        arrays = {k: np.ascontiguousarray(v) for k, v in flat.items()}
        about = {"metrics": json.dumps(dict(metrics), sort_keys=True), "digest": json.dumps(digest)}
        write_whole(self._path(number, site), lambda part: save_file(arrays, part, metadata=about))

    def replies(self, number: int, roster: tuple[str, ...]) -> list[Reply]:
        """The replies of a round that are there, in roster order, whatever the order in which they came."""
        found = (self._open(self._path(number, site), site) for site in roster)
        return [reply for reply in found if reply is not None]

    def close(self, number: int, sites: Sequence[str]) -> None:
        """Write down whose replies are folded, before anything that is built on them leaves.

        A restarted coordinator folds the same ones: a late reply would make other weights than sites have seen.
        """
        text = json.dumps(list(sites))
        write_whole(self._closed(number), lambda part: part.write_text(text, encoding="utf-8"))

    def closed(self, number: int) -> tuple[str, ...] | None:
        """Whose replies were folded, or none when the round is still open; raises CheckpointError."""
        path = self._closed(number)
        if not path.exists():
            return None
        try:
            sites = tuple(str(s) for s in json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            sites = ("?",)
        if len(self.replies(number, sites)) < len(sites):
            raise CheckpointError(f"{path} names replies that are missing or damaged; put the run's folder back")
        return sites

    def _open(self, path: Path, site: str) -> Reply | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                forms = {k: (file.get_slice(k).get_dtype(), file.get_slice(k).get_shape()) for k in names}
                about = file.metadata()
                metrics, digest = json.loads(about["metrics"]), json.loads(about["digest"])
        except (SafetensorError, KeyError, TypeError, ValueError):
            return None
        if forms != {k: (_FORMATS[k], [n]) for k, n in self._schema.sizes.items()}:
            return None
        return Reply(site, path, metrics, _starts(path), digest)

    def clear(self) -> None:
        """Remove all replies; called when a checkpoint holds what was made of them."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _starts(path: Path) -> dict[str, int]:
    """At which byte of a whole safetensors file each array begins.

    The file is the header's length in 8 bytes, the header in JSON, then the arrays, to which its offsets are relative
    (safetensors' README, Format).
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {k: 8 + length + about["data_offsets"][0] for k, about in header.items() if k != "__metadata__"}
