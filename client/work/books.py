"""The two books that a site keeps, and what is written into them before anything leaves."""

from dataclasses import dataclass
from pathlib import Path

from client.handover.mailbox import HELD_MODE, reply_texts, write_file
from client.work import audit, ledger
from client.work.audit import Audit, about
from client.work.ledger import Ledger, line_of
from client.work.outcome import Outcome
from client.work.tasks import Offer
from common.manifests import AuditHead, arrays_sha256, metrics_sha256

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
        manifest, payload = offer.manifest, arrays_sha256(outcome.arrays) if outcome.arrays else None
        metrics = None if outcome.metrics is None else metrics_sha256(outcome.metrics)
        line = line_of(
            manifest, offer.study.name, offer.credentials.coordinator, len(offer.schema.entries), outcome.arrays,
            outcome.metrics, norm=outcome.norm, payload=payload, error=outcome.error,
            metrics_sha256=metrics, kept=self._keep(offer, outcome, payload or metrics),
        )  # fmt: skip
        entered = self.ledger.append(line)
        failed = outcome.error is not None
        head = self.audit.append("failed" if failed else "sent", code=outcome.error, ledger=entered, **about(manifest))
        return Entered(head, payload, metrics)

    def _keep(self, offer: Offer, outcome: Outcome, digest: str | None) -> str | None:
        if not offer.config.egress.keep or digest is None:
            return None
        name = f"{digest[:16]}.safetensors"
        write_file(self._folder / KEPT / name, reply_texts(outcome.metrics), outcome.arrays, HELD_MODE)
        return name
