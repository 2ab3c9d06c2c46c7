"""The two books that a site keeps, and what is written into them before anything leaves."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from client.handover.files import reply_texts, write_file
from client.handover.mailbox import HELD_MODE
from client.work import audit, ledger
from client.work.audit import Audit, about
from client.work.ledger import Ledger, line_of
from client.work.outcome import Outcome
from client.work.tasks import Offer
from common.manifests import AuditHead

KEPT = "sent"


@dataclass(frozen=True)
class Entered:
    """What the books say of a reply, for its signed header.

    Attributes:
        head: The audit log's, after this reply.
        payload: Hash of the arrays, if it has any.
        metrics: Hash of the numbers; none for an error.
    """

    head: AuditHead
    payload: str | None
    metrics: str | None


class Books:
    """Audit log and ledger of one site.

    Args:
        folder: The trainer's.

    Attributes:
        audit: What happened here.
        ledger: What left.

    Raises:
        AuditError: The audit log was altered.
        StorageError: A book cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.audit = Audit(folder / audit.FILE)
        self.ledger = Ledger(folder / ledger.FILE)

    def enter(self, offer: Offer, outcome: Outcome) -> Entered:
        """Write down what is about to leave, before it can; raises StorageError."""
        line = line_of(
            offer.task, offer.study, offer.credentials.coordinator, offer.uplink.tensors, outcome.arrays,
            outcome.metrics, norm=outcome.norm, error=outcome.error, kept=self._keep(offer, outcome),
        )  # fmt: skip
        entered = self.ledger.append(line)
        failed = outcome.error is not None
        head = self.audit.append(
            "failed" if failed else "sent", code=outcome.error, ledger=entered, **about(offer.manifest)
        )
        return Entered(head, line.payload, line.metrics_sha256)

    def _keep(self, offer: Offer, outcome: Outcome) -> str | None:
        if not offer.config.egress.keep or outcome.metrics is None:
            return None
        name = f"{secrets.token_hex(8)}.safetensors"
        write_file(self._folder / KEPT / name, reply_texts(outcome.metrics), outcome.arrays, HELD_MODE)
        return name
