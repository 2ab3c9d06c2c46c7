"""Messages between real sites: every task carries a signed manifest, every reply its trainer's signature."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from common import wire
from common.errors import SignatureError, WireError
from common.manifests import (
    AuditHead,
    Counted,
    ReplyHeader,
    RoundManifest,
    arrays_sha256,
    metrics_sha256,
    verified_reply,
)
from common.signing import read_signed
from common.uplink import Uplink
from common.wire import Flat
from server.channel import Ask, Received
from server.consent import WORDS, NotAllowedError
from server.enrolment.site_file import Enrolled
from server.manifests import Manifests

TTL = 30 * 24 * 3600.0  # seconds; Flower forgets a message then. The rounds have their own deadlines


@dataclass(frozen=True)
class SealedReply(Received):
    """A reply whose header is its site's word; numbers and weights are held against it."""

    header: ReplyHeader | None = None

    def metrics(self, keys: frozenset[str], limits: Mapping[str, float]) -> dict[str, float]:
        """As `Received.metrics`; raises WireError for numbers that were not signed."""
        values = super().metrics(keys, limits)
        if self.header is None or metrics_sha256(values) != self.header.metrics:
            raise WireError("the reply's metrics are not the ones that were signed")
        return values

    def arrays(self, uplink: Uplink) -> Flat:
        """As `Received.arrays`; raises WireError for arrays that were not signed."""
        flat = super().arrays(uplink)
        if self.header is None or arrays_sha256(flat) != self.header.payload:
            raise WireError("the reply's arrays are not the ones that were signed")
        return flat


class Sealed:
    """The messages of one signed run.

    Args:
        manifests: The run's chain.
        enrolled: Whose word counts.
        coordinator: The coordinator's id.
        heard: Called with each head of a site's audit log: (site, head, whether the reply answers the newest question).
    """

    def __init__(
        self,
        manifests: Manifests,
        enrolled: Enrolled,
        coordinator: str,
        heard: Callable[[str, AuditHead, bool], object] = lambda *_: None,
    ) -> None:
        self._manifests = manifests
        self._enrolled = enrolled
        self._coordinator = coordinator
        self._heard = heard
        self._asked: RoundManifest | None = None

    def messages(self, ask: Ask) -> dict[str, Message]:
        """The message for each site; the manifest is the same for all of the roster, and on disk before it leaves."""
        assignment = self._manifests.issue(
            ask.round, ask.kind, ask.part, None if ask.flat is None else arrays_sha256(ask.flat),
            {site: Counted(round=ask.acknowledged.get(site, 0), reply=ask.replies.get(site)) for site in ask.roster},
            ask.terms.model_dump() if ask.kind == "train" else {}, ask.best, ask.figures,
        )  # fmt: skip
        self._asked = self._manifests.last
        text, arrays = assignment.canonical(), ask.arrays()
        return {site: _message(node, ask, text, arrays) for site, node in ask.to.items()}

    def received(self, site: str, reply: Message) -> SealedReply:
        """The reply, its header verified; raises WireError for a refusal, an error, and what `site` did not sign."""
        if reply.has_error():
            raise WireError(wire.error_code(reply))
        record = reply.content.get(wire.HEADER)
        raw = record.get("header") if isinstance(record, ConfigRecord) else None
        if not isinstance(raw, bytes) or self._asked is None:
            raise WireError("the reply has no signed header")
        try:
            signed = read_signed(raw)
            key = self._enrolled.reply_key(site, signed.key)
            if key is None:
                raise WireError("the reply is signed with a key that does not count (any more)")
            header = verified_reply(signed, key, self._coordinator, site, self._asked)
        except SignatureError as error:
            raise WireError(f"the reply's signature is refused ({error.reason})") from None
        if header.audit is not None:
            self._heard(site, header.audit, header.manifest == self._asked.sha256())
        if header.error in WORDS:
            raise NotAllowedError(header.error)
        if header.error is not None:
            raise WireError(header.error)
        wanted = {wire.HEADER, wire.METRICS} | ({wire.ARRAYS} if header.payload is not None else set())
        if set(reply.content) != wanted:
            raise WireError("the reply holds more or less than what was signed")
        return SealedReply(reply, sha256(signed.body.encode()).hexdigest(), header)

    def gone(self, sites: Collection[str]) -> set[str]:
        """Those whose enrolment was revoked."""
        there = {site.name for site in self._enrolled.sites() if not site.revoked}
        return set(sites) - there


def _message(node: int, ask: Ask, assignment: bytes, arrays: ArrayRecord | None) -> Message:
    content = RecordDict({wire.ASSIGNMENT: ConfigRecord({"assignment": assignment})})
    if arrays is not None:
        content[wire.ARRAYS] = arrays
    kind = "query" if ask.kind in ("join", "result") else ask.kind
    return Message(content, dst_node_id=node, message_type=kind, ttl=TTL, group_id=f"{ask.run}/{ask.round}")
