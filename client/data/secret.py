"""The site's secret for pseudonyms: made once, 0600, kept in the site's home, never part of what is shown or exported.

With it equal names give equal pseudonyms within a site, nobody else can tell whether a name is behind a pseudonym by
trying names (HMAC-SHA256, RFC 2104), and two sites' pseudonyms of one patient have nothing in common.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from common.errors import IdentityError
from common.keys import FORBIDDEN, PRIVATE, private_folder, read_small, write_new

BYTES = 32


class Secret:
    """Pseudonyms for one purpose; those of another purpose cannot be told from them.

    Args:
        key: From `site_secret`, or handed to a child by the process that has it.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key

    def number(self, text: str) -> int:
        """128 bits that stand for `text`."""
        return int.from_bytes(self._digest(text)[:16], "big")

    def name(self, text: str) -> str:
        """12 hex digits that stand for `text`."""
        return self._digest(text).hex()[:12]

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)


def site_secret(home: Path, purpose: str) -> Secret:
    """The secret of the site in `home` for one purpose; made if the site has none yet.

    It lies with the trainer's files, where the link cannot read it.

    Args:
        home: The site's folder.
        purpose: Such as "export"; secrets of two purposes are independent.

    Raises:
        IdentityError: It cannot be made or read, may be read by others, or is damaged.
    """
    path = home / "trainer" / "pseudonyms.key"
    if not path.exists():
        _make(path)
    raw = read_small(path, BYTES)
    if path.stat().st_mode & FORBIDDEN:
        raise IdentityError(f"{path} can be read or written by others; run: chmod 600 {path}")
    if len(raw) != BYTES:
        raise IdentityError(f"{path} is damaged: take it from the backup, or delete it and get other pseudonyms")
    return Secret(hmac.digest(raw, purpose.encode(), hashlib.sha256))


def _make(path: Path) -> None:
    """Whole or not at all; of two processes that make it at once, one wins and both use its file."""
    private_folder(path.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_new(part, secrets.token_bytes(BYTES), PRIVATE)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink()
