"""A site leaves a study: what was kept of its runs goes, and no reply of it is left for the link."""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from client.handover.files import COUNTS, REPLY, Ref
from client.handover.mailbox import Mailbox
from client.work.approval_record import State
from common.disk import not_written
from common.errors import CheckpointError, SignatureError, WireError
from common.signing import read_signed

log = logging.getLogger("fedscan.trainer")


class Departures:
    """The studies that one site leaves.

    Args:
        home: The site's folder.
        mailbox: Where replies wait for the link.
        states: How each study stands, by digest.
    """

    def __init__(self, home: Path, mailbox: Mailbox, states: Callable[[], Mapping[str, State]]) -> None:
        self._home = home
        self._mailbox = mailbox
        self._states = states
        self._due = [study for study, state in states().items() if state == "withdrawn"]

    def add(self, study: str) -> None:
        """What is kept of the study of this digest is to go; may be called by any thread."""
        self._due.append(study)

    def carry_out(self, runs_of: Callable[[str], Iterable[str]], midround_of: Callable[[str], Path | None]) -> None:
        """Remove what is kept of the studies that were added; nothing may be worked on now.

        Args:
            runs_of: The runs of a study.
            midround_of: Where its open round lies, if it has one.
        """
        while self._due:
            study = self._due[0]
            try:
                forget(self._home, runs_of(study), midround_of(study))
                take_back(self._mailbox, study)
            except (OSError, CheckpointError) as error:
                log.error("what is kept of study %s was not removed: %s", study[:12], error)
            self._due.pop(0)

    def sift(self) -> None:
        """Remove what is held and belongs to a study that may not run any more; raises StorageError."""
        states = self._states()
        try:
            _remove(self._mailbox, True, lambda study: states.get(study) != "approved")
        except OSError as error:
            raise not_written(self._mailbox.folder, error) from None


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
