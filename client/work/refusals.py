"""The word that a task is not worked on: written down, signed, and let out as every reply is."""

import logging
from collections.abc import Callable

from client.handover.control import Progress, TrainerBusyError
from client.handover.files import FileName
from client.handover.mailbox import Mailbox
from client.identity import TrainerCredentials
from client.work.audit import Audit, about
from client.work.replies import write_refusal
from common.errors import FedscanError, PolicyError, SignatureError, StorageError
from common.manifests import RoundManifest

log = logging.getLogger("fedscan.trainer")


class Refusals:
    """What one site refuses.

    Args:
        mailbox: Where replies wait for the link.
        audit: Where it is written down.
        release: Lets a reply out; false while the site is paused.

    Attributes:
        last_code: Why the last task was refused or failed; none when it did not.
    """

    def __init__(self, mailbox: Mailbox, audit: Audit, release: Callable[[FileName], bool]) -> None:
        self._mailbox = mailbox
        self._audit = audit
        self._release = release
        self.last_code: str | None = None

    def note(self, error: FedscanError, manifest: RoundManifest | None = None) -> None:
        """Write down that something was refused; with `manifest`, which task."""
        reason = str(error.reason) if isinstance(error, SignatureError | PolicyError) else None
        self._audit.refused(error.code, reason, **({} if manifest is None else about(manifest)))
        self.last_code = error.code

    def signed(self, manifest: RoundManifest, who: TrainerCredentials, error: FedscanError) -> Progress:
        """The signed word that a task is not worked on; unsigned where the disk is full.

        Raises:
            TrainerBusyError: The site is paused: it waits.
        """
        self.note(error, manifest)
        try:
            ref = write_refusal(self._mailbox, manifest, who, error.code, self._audit.head)
            if not self._release(ref.name):
                raise TrainerBusyError("the site is paused")
        except StorageError as full:
            log.error("%s: %s", full.code, full)
            ref = None
        return Progress(state="refused", code=error.code, reply=ref)
