"""The last heads of each site's audit log, as signed replies said them: a log that lost lines or was rewritten shows.

The log itself stays at its site. What is kept here is one hash and one number for each of a site's last replies.
"""

import threading
from pathlib import Path
from typing import Literal

from pydantic import Field

from common.disk import write_whole
from common.manifests import AuditHead
from common.records import Record, RecordError, read_record
from common.section import Name

FILE = "audit-heads.json"
_BYTES = 16 * 1024 * 1024
_KEPT = 50  # heads of each site: a reply may come late, or again

Finding = Literal["shrank", "forked"]
SAYS: dict[Finding, str] = {
    "shrank": "its audit log has fewer lines than it had: lines were cut off, or the site began a new log",
    "forked": "its audit log is not the one that it had: lines were rewritten, or the site began a new log",
}


class Heads(Record):
    """The file: each site's heads, the longest last."""

    version: Literal[1] = 1
    sites: dict[Name, list[AuditHead]] = Field({})


class AuditHeads:
    """What is known of the sites' logs; may be used by any thread.

    Args:
        path: The file. One that is damaged is begun anew: nothing but this watch depends on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._heads = read_heads(path)

    def heard(self, site: str, said: AuditHead, fresh: bool) -> Finding | None:
        """Keep what a site said, and tell what is wrong with it; told once, because then the new log is what counts.

        Args:
            site: Who.
            said: The head in a reply whose signature holds.
            fresh: Whether the reply answers the newest question: an older one has a shorter log, and rightly so.

        Raises:
            StorageError: It could not be kept.
        """
        with self._lock:
            known = self._heads.sites.get(site, [])
            if said in known:
                return None
            finding: Finding | None = None
            if any(head.length == said.length for head in known):
                finding = "forked"
            elif fresh and known and said.length < known[-1].length:
                finding = "shrank"
            kept = [said] if finding else sorted([*known, said], key=lambda head: head.length)[-_KEPT:]
            self._heads = Heads(sites={**self._heads.sites, site: kept})
            text = self._heads.canonical() + b"\n"
            write_whole(self._path, lambda part: part.write_bytes(text))
            return finding


def read_heads(path: Path) -> Heads:
    """The file, empty where there is none that can be read."""
    try:
        return read_record(Heads, path.read_bytes(), _BYTES)
    except (OSError, RecordError):
        return Heads()
