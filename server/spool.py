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


@dataclass(frozen=True)
class Reply:
    """One site's spooled update: metrics in memory, tensors on disk.

    Attributes:
        site: Whose it is.
        path: Where the tensors lie.
        metrics: What came with them.
        digest: Hash by which later tasks name the reply, where replies are signed.
    """

    site: str
    path: Path
    metrics: dict[str, float]
    digest: str | None = None

    def read(self, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """Elements `start` … `stop` of the flat array of `dtype`."""
        with safe_open(self.path, framework="numpy") as file:
            values: NDArray[Any] = file.get_slice(dtype)[start:stop]
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
                shapes = {k: file.get_slice(k).get_shape() for k in names}
                about = file.metadata()
                metrics, digest = json.loads(about["metrics"]), json.loads(about["digest"])
        except (SafetensorError, KeyError, TypeError, ValueError):
            return None
        if shapes != {k: [n] for k, n in self._schema.sizes.items()}:
            return None
        return Reply(site, path, metrics, digest)

    def clear(self) -> None:
        """Remove all replies; called when a checkpoint holds what was made of them."""
        shutil.rmtree(self._folder, ignore_errors=True)
