"""What a site remembers of its files between runs, so that unchanged scans are not read again."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from client.data.volume import Case, Finding, Source, Stack
from common.disk import write_whole

FILE = "intake.json"


class Memory:
    """Content hashes of files, and the errors of bad cases. Lost or damaged, it is simply filled again.

    Args:
        home: The site's own folder; the file in it names paths and must stay there.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._hashes: dict[str, list[str | int]] = {}
        self._findings: dict[str, list[dict[str, str]]] = {}
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            self._hashes, self._findings = dict(stored["hashes"]), dict(stored["findings"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        # Several processes may open one site; those that learn nothing new leave its file alone.
        self._stored = self._text() if self._path.is_file() else ""

    def digest(self, source: Source) -> str:
        """SHA-256 of the content, in hex; a file is read again only if its size or modification time has changed.

        Raises:
            OSError: A file cannot be read.
        """
        if isinstance(source, Path):
            return self._file(source)
        return self._stack(source)

    def _stack(self, stack: Stack) -> str:
        """Of the files' contents and of what is taken from them, as a file may hold several volumes."""
        whole = hashlib.sha256(repr((stack.shape, stack.matrix, stack.frames)).encode())
        digests = {path: self._file(path) for path in stack.paths}
        whole.update("".join(digests[path] for path in stack.files).encode())
        return whole.hexdigest()

    def _file(self, path: Path) -> str:
        state = path.stat()
        known = self._hashes.get(str(path))
        if known and known[1:] == [state.st_size, state.st_mtime_ns]:
            return str(known[0])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._hashes[str(path)] = [digest, state.st_size, state.st_mtime_ns]
        return digest

    def findings(self, key: str, case: Case) -> list[Finding]:
        """The errors of `case` when its content had `key`; empty if none are known."""
        return [Finding(**finding) for finding in self._findings.get(_name(key, case), [])]

    def keep(self, key: str, case: Case, findings: Sequence[Finding]) -> None:
        """Remember the errors of `case`."""
        self._findings[_name(key, case)] = [asdict(finding) for finding in findings]

    def save(self) -> None:
        """Write the file in the site's folder, if there is something new.

        Raises:
            StorageError: It cannot be written.
        """
        text = self._text()
        if text != self._stored:
            write_whole(self._path, lambda part: part.write_text(text, encoding="utf-8"))

    def _text(self) -> str:
        return json.dumps({"hashes": self._hashes, "findings": self._findings})


def _name(key: str, case: Case) -> str:
    """Findings name case and files, so both belong to the name under which they are kept."""
    files = "\x1f".join([case.id, *map(str, case.images), str(case.label)])
    return f"{key}:{hashlib.sha256(os.fsencode(files)).hexdigest()[:16]}"
