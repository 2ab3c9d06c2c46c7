"""A site leaves a study: what was kept of its runs goes, and no reply of it is left for the link."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from client.handover.mailbox import COUNTS, REPLY, Mailbox, Ref
from common.errors import SignatureError, WireError
from common.signing import read_signed


def forget(home: Path, runs: Iterable[str], midround: Path | None) -> None:
    """Remove the state that was kept between the rounds of `runs`, and the open round; raises OSError.

    What stays: the prepared scans, which other studies share; the scores of single cases, which are the site's own;
    and the memory of accepted tasks, without which old ones could be replayed.
    """
    for run in runs:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(home / "trainer" / "runs" / "state" / run)
    if midround is not None:
        midround.unlink(missing_ok=True)


def take_back(mailbox: Mailbox, study: str) -> None:
    """Remove the replies of a study, by its digest, that the link has not fetched yet or may not; raises OSError."""
    for held in (False, True):
        _remove(mailbox, held, lambda digest: digest == study)


def drop_held(mailbox: Mailbox, unwanted: Callable[[str], bool]) -> None:
    """Remove the replies that the link may not have yet, of studies that are unwanted by now; raises OSError."""
    _remove(mailbox, True, unwanted)


def _remove(mailbox: Mailbox, held: bool, unwanted: Callable[[str], bool]) -> None:
    for name in (REPLY, COUNTS):
        path = mailbox.path(name, held)
        try:
            ref = Ref(name=name, nbytes=path.lstat().st_size, digest="0" * 64)  # only its header is read
            with mailbox.open(ref, held) as file:
                body = json.loads(read_signed(file.metadata.get("header", "").encode()).body)
        except (FileNotFoundError, WireError, SignatureError, ValueError):
            continue
        # A refusal is no more than the word that nothing is done.
        if isinstance(body, dict) and body.get("error") is None and unwanted(str(body.get("study"))):
            path.unlink(missing_ok=True)
