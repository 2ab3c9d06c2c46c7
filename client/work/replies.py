"""Replies as they leave the trainer: signed, whole on disk, and the same bytes again when the same task comes again."""

import importlib.metadata
import secrets

from client.handover.files import COUNTS, MAX_HEADER_BYTES, REPLY, Ref
from client.handover.mailbox import Mailbox, read_reply
from client.identity import TrainerCredentials
from client.work.books import Books
from client.work.outcome import Outcome
from client.work.tasks import Offer
from common.errors import SignatureError, WireError
from common.manifests import (
    AuditHead,
    ReplyHeader,
    RoundManifest,
    arrays_sha256,
    metrics_sha256,
    sign_reply,
    verified_reply,
)
from common.signing import read_signed


def software() -> str:
    """Version of fedscan at this site."""
    return importlib.metadata.version("fedscan")


def write_reply(mailbox: Mailbox, offer: Offer, outcome: Outcome, books: Books) -> Ref:
    """Enter an outcome in the books, sign it, and put it where the link cannot reach it yet; raises StorageError."""
    manifest, who = offer.manifest, offer.credentials
    entered = books.enter(offer, outcome)
    header = ReplyHeader(
        run=manifest.run, study=manifest.study, site=who.site, task=manifest.task, manifest=manifest.sha256(),
        base=manifest.base, payload=entered.payload, metrics=entered.metrics, error=outcome.error,
        salt=secrets.token_hex(32), software=software(), audit=entered.head,
    )  # fmt: skip
    signed = sign_reply(who.reply_key, who.coordinator, header)
    # These answers must not replace an update that the coordinator may ask for again.
    name = COUNTS if manifest.kind in ("join", "result") else REPLY
    return mailbox.hold_reply(signed.canonical(), outcome.metrics, outcome.arrays, name)


def write_refusal(
    mailbox: Mailbox, manifest: RoundManifest, who: TrainerCredentials, code: str, audit: AuditHead
) -> Ref:
    """Sign that a task is not worked on, and keep it beside the last update, to be released; raises StorageError."""
    header = ReplyHeader(
        run=manifest.run, study=manifest.study, site=who.site, task=manifest.task, manifest=manifest.sha256(),
        base=manifest.base, error=code, salt=secrets.token_hex(32), software=software(), audit=audit,
    )  # fmt: skip
    return mailbox.hold_reply(sign_reply(who.reply_key, who.coordinator, header).canonical(), None, {}, COUNTS)


def stored_reply(mailbox: Mailbox, offer: Offer) -> Ref | None:
    """The reply that lies in the mailbox, if it is this site's own answer to this very task.

    Case counts are counted again, and what failed is tried again. The file is trusted only as far as this site's own
    signature reaches: the mailbox is open to the link.
    """
    most = MAX_HEADER_BYTES + offer.uplink.nbytes + 8
    if not offer.accepted.again or (ref := mailbox.find(REPLY, most)) is None:
        return None
    who = offer.credentials
    try:
        reply = read_reply(mailbox, ref)
        signed, key = read_signed(reply.header), who.reply_key.public_key()
        header = verified_reply(signed, key, who.coordinator, who.site, offer.manifest)
    except (WireError, SignatureError):
        return None
    payload = arrays_sha256(reply.arrays) if reply.arrays else None
    metrics = None if reply.metrics is None else metrics_sha256(reply.metrics)
    whole = header.error is None and (header.payload, header.metrics) == (payload, metrics)
    return ref if whole else None
