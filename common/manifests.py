"""What is signed in a run: the order that permits it, the manifest of each task, the header of each reply.

The study-signing key, which may lie offline, signs the study and a run order. The order names the coordinator's
online key, which may then sign the manifests of that run of that study until the order expires. Each manifest commits
to all earlier ones of its run (a hash chain), so a run cannot be forked or rolled back unseen.
"""

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from common.errors import SignatureError
from common.figures import Figures
from common.records import AnyRecord, Record, RecordError, RunName, Sha256, canonical_json, read_canonical, read_record
from common.section import AT_SITE, Name
from common.signing import (
    MAX_SIGNED_BYTES,
    Base64Key,
    Kind,
    Refusal,
    Signed,
    coordinator_audience,
    sign,
    sites_of,
    verify,
)
from common.study import Study
from common.study_training import MOST_ROUNDS

MAX_SEQUENCE = 250_000  # training and validation in each round, and room for restarts
# The longest history in base64, and the rest of an assignment.
MAX_ASSIGNMENT_BYTES = 12 * 1024 * 1024
LINK = 32  # bytes of one link of the history

TaskKind = Literal["join", "train", "evaluate", "result"]
Second = Annotated[AwareDatetime, Field(description="whole seconds, UTC")]
Round = Annotated[int, Field(ge=0, le=MOST_ROUNDS)]


class RunOrder(Record):
    """Lets the coordinator's online key sign the manifests of one run of one study.

    Attributes:
        study: The study's digest.
        run: The run's name, in our own words.
        round_key: Public half of the online key.
        issued: When it was signed; of two orders of a run the later one counts.
        valid_until: After this no site starts a task of the run.
        max_rounds: The last round that may be signed; 0 where nothing is trained.
    """

    study: Sha256
    run: RunName
    round_key: Base64Key
    issued: Second
    valid_until: Second
    max_rounds: int = Field(ge=0, le=MOST_ROUNDS)


class Counted(Record):
    """The last reply of a site that was counted.

    Attributes:
        round: Its round, 0 for none yet.
        reply: SHA-256 of the body of its reply header; the site may forget that reply.
    """

    round: Round = 0
    reply: Sha256 | None = None


class RoundManifest(Record):
    """One task of a run, the same for all sites of its roster. A site makes its task from nothing else.

    Attributes:
        run: The run's name.
        study: The study's digest.
        sequence: Place in the run's chain, from 1.
        previous: Head of the chain before this manifest, in hex.
        round: The round that the task belongs to.
        kind: What is asked.
        part: Which cases are meant.
        base: Hash of the weights that come with it (`arrays_sha256`); none for `join`.
        best: The round with the best validation so far, 0 for none.
        terms: The strategy's client half, the fields of `common.wire.Terms`.
        roster: The sites that are asked, each with its last counted reply.
        figures: What the study found; with its result only, whose weights are the base.
    """

    run: RunName
    study: Sha256
    sequence: int = Field(ge=1, le=MAX_SEQUENCE)
    previous: Sha256
    round: Round
    kind: TaskKind
    part: Literal["train", "validation", "test"] = "train"
    base: Sha256 | None = None
    best: Round = 0
    terms: dict[Name, float] = Field({}, max_length=32)
    roster: dict[Name, Counted] = Field(min_length=1, max_length=1000)
    figures: Figures | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.kind == "join") != (self.base is None):
            raise ValueError("join comes without weights, everything else with them")
        if (self.kind == "evaluate") != (self.part != "train"):
            raise ValueError("evaluate is for validation and test cases, everything else for training cases")
        if (self.kind == "result") != (self.figures is not None):
            raise ValueError("the result comes with the study's figures, nothing else does")
        return self

    @property
    def task(self) -> str:
        """The task in our own words: the same whenever it is sent again, by whatever message."""
        return f"{self.run}/{self.round}/{self.kind}/{self.part}"

    def core(self) -> str:
        """Hash of what a reply to this manifest depends on; equal for a task that is sent again."""
        parts = [self.task, self.study, self.base, self.terms]
        return sha256(canonical_json(parts if self.figures is None else [*parts, self.figures.sha256()])).hexdigest()


class AuditHead(Record):
    """How far a site's audit log has come, so that a log which lost its end can be told.

    Attributes:
        head: Hash of its last line.
        length: How many lines it has.
    """

    head: Sha256
    length: int = Field(ge=0)


class ReplyHeader(Record):
    """What a site's trainer says of its reply and signs with the key that only the trainer reads.

    Attributes:
        run: The run's name.
        study: The study's digest.
        site: The site's name.
        task: As in the manifest.
        manifest: SHA-256 of the manifest's body.
        base: The weights that the reply starts from.
        payload: Hash of the update's arrays (`arrays_sha256`); none when it has none.
        metrics: Hash of the metrics (`metrics_sha256`); none for an error.
        error: A code of the closed list when the site has no answer.
        salt: Random, so that nobody can guess the hash of a reply.
        software: Version of fedscan at the site.
        audit: Head and length of the site's audit log.
    """

    run: RunName
    study: Sha256
    site: Name
    task: str = Field(max_length=200)
    manifest: Sha256
    base: Sha256 | None = None
    payload: Sha256 | None = None
    metrics: Sha256 | None = None
    error: str | None = Field(None, pattern=r"^E_[A-Z_]{1,30}$")
    salt: Sha256
    software: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,40}$")
    audit: AuditHead | None = None

    @model_validator(mode="after")
    def _answer_or_error(self) -> Self:
        if (self.error is None) != (self.metrics is not None) or (self.error and self.payload):
            raise ValueError("a reply has metrics (and perhaps an update) or an error")
        return self


class SignedStudy(Record):
    """The file that `fedscan study sign` writes: the signed study and the order for one run of it."""

    format: Literal["fedscan.signed-study"] = "fedscan.signed-study"
    version: Literal[1] = 1
    study: Signed
    order: Signed


class Assignment(Record):
    """What travels with the weights of every task.

    Attributes:
        study: The signed study.
        order: The signed run order.
        manifest: The signed manifest.
        history: SHA-256 of the body of each earlier manifest of the run, one after the other, in base64. It needs no
            signature: the manifest's `previous` commits to it.
    """

    study: Signed
    order: Signed
    manifest: Signed
    history: str = Field(max_length=MAX_ASSIGNMENT_BYTES)


def genesis(run: str, study: str) -> bytes:
    """Head of the chain of a run that has no manifest yet."""
    return sha256(b"fedscan run\0" + canonical_json([run, study])).digest()


def link(head: bytes, body_sha256: bytes) -> bytes:
    """Head of the chain after a manifest whose body has this SHA-256."""
    return sha256(b"fedscan link\0" + head + body_sha256).digest()


def arrays_sha256(arrays: Mapping[str, Any]) -> str:
    """Hash of flat arrays.

    Args:
        arrays: By dtype, what `common.wire.Flat` is: C-contiguous buffers of little-endian values.
    """
    total = sha256(b"fedscan arrays\0")
    for dtype in sorted(arrays):
        view = memoryview(arrays[dtype]).cast("B")
        total.update(canonical_json([dtype, view.nbytes]))
        total.update(view)
    return total.hexdigest()


def metrics_sha256(metrics: Mapping[str, float]) -> str:
    """Hash of a reply's metrics."""
    return sha256(b"fedscan metrics\0" + canonical_json(dict(metrics))).hexdigest()


def sign_study(
    key: Ed25519PrivateKey, coordinator: str, study: Study, run: str, round_key: str, issued: datetime, until: datetime
) -> SignedStudy:
    """Sign `study` and the order for one run of it, as long as the study's own number of rounds."""
    order = RunOrder(
        study=study.digest(),
        run=run,
        round_key=round_key,
        issued=issued.replace(microsecond=0),
        valid_until=until.replace(microsecond=0),
        max_rounds=study.rounds.number,
    )
    audience = sites_of(coordinator)
    return SignedStudy(
        study=sign(key, Kind.STUDY, audience, study.canonical()),
        order=sign(key, Kind.ORDER, audience, order.canonical()),
    )


def read_signed_study(raw: bytes) -> SignedStudy:
    """A signed study file, not yet verified; raises SignatureError (FORM)."""
    return _read(SignedStudy, raw, "signed study", 2 * MAX_SIGNED_BYTES)


def read_assignment(raw: bytes) -> Assignment:
    """What came with a task, not yet verified; raises SignatureError (FORM)."""
    return _read(Assignment, raw, "assignment", MAX_ASSIGNMENT_BYTES)


def verified_study(signed: Signed, key: Ed25519PublicKey, coordinator: str) -> Study:
    """The study that `key` signed; its strategy is taken as it stands. Raises SignatureError."""
    body = verify(signed, key, Kind.STUDY, sites_of(coordinator))
    try:
        study = Study.model_validate(json.loads(body), context=AT_SITE)
    except (ValueError, ValidationError, TypeError):
        raise SignatureError(Refusal.FORM, "the signed study cannot be read by this version of fedscan") from None
    if study.canonical() != body:
        raise SignatureError(Refusal.FORM, "the signed study is not in its canonical form")
    return study


def verified_order(signed: Signed, key: Ed25519PublicKey, coordinator: str) -> RunOrder:
    """The run order that `key` signed; whether it has expired is the caller's to see. Raises SignatureError."""
    return _canonical(RunOrder, verify(signed, key, Kind.ORDER, sites_of(coordinator)), "run order")


def verified_manifest(signed: Signed, key: Ed25519PublicKey, coordinator: str) -> RoundManifest:
    """The manifest that `key`, a run order's online key, signed. Raises SignatureError."""
    return _canonical(RoundManifest, verify(signed, key, Kind.MANIFEST, sites_of(coordinator)), "manifest")


def sign_reply(key: Ed25519PrivateKey, coordinator: str, header: ReplyHeader) -> Signed:
    """Sign a reply's header with the site's reply key."""
    return sign(key, Kind.REPLY, coordinator_audience(coordinator), header.canonical())


def verified_reply(
    signed: Signed, key: Ed25519PublicKey, coordinator: str, site: str, manifest: RoundManifest
) -> ReplyHeader:
    """The header of a reply of `site` to the task of `manifest`.

    A task that was sent again under a later manifest may be answered with the reply to an earlier one: what is
    compared is the task and its base, not the manifest's hash.

    Raises:
        SignatureError: With the reason KIND, VERSION, AUDIENCE, KEY, SIGNATURE or FORM; RUN, STUDY, TASK or FORK for
            a good signature on a reply of another run, study or task, or from other weights; ROSTER for a site that
            was not asked or signs for another one.
    """
    body = verify(signed, key, Kind.REPLY, coordinator_audience(coordinator))
    header = _canonical(ReplyHeader, body, "reply header")
    if header.site != site or site not in manifest.roster:
        raise SignatureError(Refusal.ROSTER, f"a reply of {header.site} came from {site}, or {site} was not asked")
    for reason, found, wanted in (
        (Refusal.RUN, header.run, manifest.run),
        (Refusal.STUDY, header.study, manifest.study),
        (Refusal.TASK, header.task, manifest.task),
        (Refusal.FORK, header.base, manifest.base),
    ):
        if found != wanted:
            raise SignatureError(reason, f"{site}: the reply's {reason} is {found}, asked was {wanted}")
    return header


def history_bytes(text: str) -> bytes:
    """The history of an assignment as whole links; raises SignatureError (FORM)."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b"?"
    if len(raw) % LINK:
        raise SignatureError(Refusal.FORM, "the history of the run is not a row of hashes")
    return raw


def _read(model: type[AnyRecord], raw: bytes, what: str, limit: int) -> AnyRecord:
    try:
        return read_record(model, raw, limit)
    except RecordError as error:
        raise SignatureError(Refusal.FORM, f"the {what} {error}") from None


def _canonical(model: type[AnyRecord], body: bytes, what: str) -> AnyRecord:
    try:
        return read_canonical(model, body, MAX_SIGNED_BYTES)
    except RecordError as error:
        raise SignatureError(Refusal.FORM, f"the {what} {error}") from None
