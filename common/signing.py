"""Signatures: Ed25519 (RFC 8032) over bytes that say what is signed, in which version, and for whom.

A signature that was made for one purpose is worthless for another: kind, version and audience are part of the signed
bytes, each with its length in front, so that no two different tuples give the same bytes.
"""

import base64
import binascii
from enum import StrEnum
from hashlib import sha256
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from common.errors import SignatureError
from common.records import Record, RecordError, Sha256, read_record

VERSION = 1
MAX_SIGNED_BYTES = 1024 * 1024

Base64Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$", description="32 bytes in base64")]
Base64Signature = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$", description="64 bytes in base64")]


class Kind(StrEnum):
    """What a signature is about."""

    STUDY = "study"
    ORDER = "run-order"
    MANIFEST = "round-manifest"
    REPLY = "reply"
    REQUEST = "enrolment-request"


class Refusal(StrEnum):
    """Why a signed message is refused."""

    FORM = "form"
    KIND = "kind"
    VERSION = "version"
    AUDIENCE = "audience"
    KEY = "key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    STUDY = "study"
    RUN = "run"
    TASK = "task"
    ROUNDS = "rounds"
    ROSTER = "roster"
    OLDER = "older"
    FORK = "fork"


class Signed(Record):
    """A body and a signature on it.

    Attributes:
        kind: What the body is.
        version: Version of the body's form.
        audience: For whom it was signed.
        body: The signed text itself, so that nobody has to spell it again before verifying.
        key: Id of the signing key.
        signature: In base64.
    """

    kind: str = Field(max_length=40)
    version: int = Field(ge=1, le=10_000)
    audience: str = Field(max_length=200)
    body: str
    key: Sha256
    signature: Base64Signature


def sites_of(coordinator: str) -> str:
    """The audience of what a coordinator signs: all of its sites, and nobody else's."""
    return f"sites of {coordinator}"


def coordinator_audience(coordinator: str) -> str:
    """The audience of what a site signs."""
    return f"coordinator {coordinator}"


def signed_bytes(kind: str, version: int, audience: str, body: bytes) -> bytes:
    """The bytes that a key signs: each part with its length in front."""
    parts = (b"fedscan", kind.encode(), str(version).encode(), audience.encode(), body)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def sign(key: Ed25519PrivateKey, kind: Kind, audience: str, body: bytes) -> Signed:
    """Sign `body` (UTF-8) for `audience`. The same body gives the same signature (RFC 8032, 5.1.6)."""
    signature = key.sign(signed_bytes(kind, VERSION, audience, body))
    return Signed(
        kind=str(kind),
        version=VERSION,
        audience=audience,
        body=body.decode("utf-8"),
        key=key_id(key.public_key()),
        signature=base64.b64encode(signature).decode(),
    )


def verify(signed: Signed, key: Ed25519PublicKey, kind: Kind, audience: str) -> bytes:
    """The body of `signed`, when it is of this kind and version, for this audience, and signed by `key`.

    Raises:
        SignatureError: With the reason KIND, VERSION, AUDIENCE, KEY or SIGNATURE.
    """
    if signed.kind != kind:
        raise SignatureError(Refusal.KIND, f"a {kind} was expected, but this is signed as a {signed.kind!r}")
    if signed.version != VERSION:
        raise SignatureError(
            Refusal.VERSION, f"the {kind} has version {signed.version}; this fedscan reads version {VERSION}: update it"
        )
    if signed.audience != audience:
        raise SignatureError(Refusal.AUDIENCE, f"the {kind} was signed for someone else ({signed.audience!r})")
    if signed.key != key_id(key):
        raise SignatureError(Refusal.KEY, f"the {kind} is signed by a key that may not sign it ({signed.key[:16]}…)")
    body = signed.body.encode()
    try:
        key.verify(base64.b64decode(signed.signature), signed_bytes(signed.kind, signed.version, audience, body))
    except InvalidSignature:
        raise SignatureError(Refusal.SIGNATURE, f"the signature of the {kind} is wrong: it was altered") from None
    return body


def read_signed(raw: bytes, limit: int = MAX_SIGNED_BYTES) -> Signed:
    """`raw` as a signed document that nobody has verified yet; raises SignatureError (FORM)."""
    try:
        return read_record(Signed, raw, limit)
    except RecordError as error:
        raise SignatureError(Refusal.FORM, f"the signed document {error}") from None


def key_text(key: Ed25519PublicKey) -> str:
    """The public key's 32 bytes in base64."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def key_of(text: str) -> Ed25519PublicKey:
    """The public key that `key_text` wrote; raises SignatureError (FORM)."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        raise SignatureError(Refusal.FORM, "this is not an Ed25519 public key in base64") from None


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the public key's bytes, in hex."""
    return sha256(key.public_bytes_raw()).hexdigest()


def fingerprint(what: str, *parts: bytes) -> str:
    """Five groups of five letters and digits that two people can compare by telephone.

    The first 125 bits of a SHA-256 over `what` and `parts`, in base32 (RFC 4648: A-Z and 2-7, so that neither 0 and O
    nor 1 and I can be mixed up). Finding other data with the same groups would take about 2¹²⁵ attempts.
    """
    hashed = sha256(b"".join(len(p).to_bytes(8, "big") + p for p in (b"fedscan", what.encode(), *parts))).digest()
    letters = base64.b32encode(hashed).decode()[:25]
    return "-".join(letters[i : i + 5] for i in range(0, 25, 5))


def same_fingerprint(a: str, b: str) -> bool:
    """Whether two typed fingerprints are the same, whatever the case and whatever stands between the groups."""
    clean = ["".join(c for c in text.upper() if c.isalnum()) for text in (a, b)]
    return len(clean[0]) == 25 and clean[0] == clean[1]
