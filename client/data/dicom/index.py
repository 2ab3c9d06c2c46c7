"""What a site remembers of its DICOM headers between runs: only new and changed files are opened again."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from client.data.dicom.files import Listed
from client.data.dicom.records import FORMAT

Record = Mapping[str, Any]


class Index:
    """Headers by path, size and modification time, in one SQLite file.

    It is a convenience: where it cannot be read or written, headers are read from the files again.

    Args:
        path: The file, which names paths and descriptions and must stay at the site; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._open: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            self._open = _connected(path)
        except sqlite3.Error:
            with contextlib.suppress(OSError, sqlite3.Error):
                path.unlink()
                self._open = _connected(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()

    def known(self, root: Path) -> dict[str, tuple[int, int, Record]]:
        """Size, modification time and record of every file under `root` that was seen before."""
        if self._open is None:
            return {}
        ends = f"{root}/", f"{root}0", str(root)
        query = "SELECT path, size, changed, record FROM headers WHERE (path >= ? AND path < ?) OR path = ?"
        try:
            rows = self._open.execute(query, tuple(map(os.fsencode, ends))).fetchall()
            return {os.fsdecode(path): (size, changed, json.loads(record)) for path, size, changed, record in rows}
        except (sqlite3.Error, ValueError):
            return {}

    def keep(self, new: Iterable[tuple[Listed, Record]], gone: Iterable[str]) -> None:
        """Remember the records of files, and forget the files that are gone."""
        if self._open is None:
            return
        rows = [
            (os.fsencode(listed.file), listed.size, listed.changed, json.dumps(record, separators=(",", ":")))
            for listed, record in new
        ]
        with contextlib.suppress(sqlite3.Error), self._open:
            self._open.executemany("INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?)", rows)
            self._open.executemany("DELETE FROM headers WHERE path = ?", [(os.fsencode(path),) for path in gone])


def _connected(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            connection.execute("DROP TABLE IF EXISTS headers")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        # Names of files are bytes: not all of them are text.
        columns = "path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, record TEXT"
        connection.execute(f"CREATE TABLE IF NOT EXISTS headers ({columns}) WITHOUT ROWID")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection
