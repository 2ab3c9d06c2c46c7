"""Which sites of a run may take part: what their people decided, as each site says it in its signed replies."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from common.disk import write_whole
from common.errors import (
    ApprovalExpiredError,
    ApprovalPurposeError,
    ApprovalRejectedError,
    ApprovalWaitingError,
    ApprovalWithdrawnError,
    CheckpointError,
    WireError,
)
from server.events import Events

WORDS = {
    ApprovalWaitingError.code: "its people have not decided yet",
    ApprovalRejectedError.code: "its people rejected the study",
    ApprovalWithdrawnError.code: "its people withdrew their approval",
    ApprovalExpiredError.code: "the time or the rounds for which its people approved the study are over",
    ApprovalPurposeError.code: "its people approved measuring, not training",
}
# Who says one of these may say yes later; the other words hold for the run.
OPEN = (ApprovalWaitingError.code, ApprovalExpiredError.code)


class NotAllowedError(WireError):
    """A site's signed word that its people do not let it do what was asked.

    Attributes:
        reason: One of `WORDS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(WORDS[reason])
        self.reason = reason


class Consent:
    """The sites of one run that may not take part, or not in everything; kept in the run's folder.

    Args:
        path: The file; a missing one says that all may.
        events: Told of every change.

    Raises:
        CheckpointError: The file is damaged.
    """

    def __init__(self, path: Path, events: Events) -> None:
        self._path = path
        self._events = events
        self._reasons: dict[str, str] = {}
        if path.exists():
            try:
                self._reasons = TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
            except ValidationError:
                raise CheckpointError(f"{path} is damaged; remove it: the sites are then asked again") from None

    def refused(self, site: str, reason: str, during: int) -> None:
        """A site said in round `during` (0: before the first) why it does not take part; raises StorageError."""
        if self._reasons.get(site) == reason:
            return
        # Not `round`: what was said stands, also where a crash undoes the round. First: rather told twice than never.
        self._events.append("refused", during=during, site=site, code=reason, why=WORDS[reason])
        self._keep({**self._reasons, site: reason})

    def agreed(self, site: str, during: int) -> None:
        """A site takes part; raises StorageError."""
        if site in self._reasons:
            self._events.append("agreed", during=during, site=site)
            self._keep({name: reason for name, reason in self._reasons.items() if name != site})

    def reason(self, site: str) -> str | None:
        """Why a site does not take part; none when it does."""
        return self._reasons.get(site)

    def why(self, site: str) -> str:
        """The same in words; empty when it does."""
        return WORDS.get(self._reasons.get(site, ""), "")

    def trains(self, site: str) -> bool:
        """Whether a site may be asked to train."""
        return site not in self._reasons

    def measures(self, site: str) -> bool:
        """Whether a site may be asked to measure a model."""
        return self._reasons.get(site) in (None, ApprovalPurposeError.code)

    def open(self) -> list[str]:
        """Sites that do not take part now and may yet."""
        return sorted(site for site, reason in self._reasons.items() if reason in OPEN)

    def _keep(self, reasons: dict[str, str]) -> None:
        text = json.dumps(reasons, indent=1, sort_keys=True)
        write_whole(self._path, lambda part: part.write_text(text, encoding="utf-8"))
        self._reasons = reasons
