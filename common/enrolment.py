"""The two small files by which a site enrols: its request and the coordinator's answer. No private key is in either."""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, TypeAdapter, ValidationError

from common.errors import IdentityError, SignatureError, StudyError
from common.records import Record, RecordError, Sha256, read_canonical, read_record
from common.section import Name
from common.signing import VERSION, Base64Key, Kind, fingerprint, key_of, key_text, signed_bytes

MAX_REQUEST_BYTES = 16 * 1024
MAX_JOIN_BYTES = 64 * 1024

# A new site knows no coordinator yet. Whoever else gets its request can enrol these keys and use none of them.
ANY_COORDINATOR = "any coordinator"

Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=400)]
Pem = Annotated[str, Field(max_length=8 * 1024)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
Port = Annotated[int, Field(ge=1, le=65535)]

_NODE_ALGORITHM = ec.ECDSA(hashes.SHA384())
_TLS_ALGORITHM = ec.ECDSA(hashes.SHA256())


class RequestBody(Record):
    """What a site asks to be enrolled with.

    Attributes:
        name: The name that it proposes; the coordinator's operator decides.
        node_key: Public half of its Flower node key (P-384), OpenSSH format.
        tls_key: Public half of its TLS key (P-256), PEM.
        reply_key: Public half of its reply key (Ed25519).
        salt: Random, so that two requests never have one fingerprint.
    """

    name: Name
    node_key: str = Field(max_length=400)
    tls_key: str = Field(max_length=400)
    reply_key: Base64Key
    salt: Sha256


class Proofs(Record):
    """Signatures of the request's body, one by each of its keys."""

    node: Base64
    tls: Base64
    reply: Base64


class Request(Record):
    """The file that `fedscan site init` writes."""

    format: Literal["fedscan.request"] = "fedscan.request"
    version: Literal[1] = 1
    body: str = Field(max_length=4096)
    proofs: Proofs


class JoinFile(Record):
    """The file with which the coordinator answers.

    Attributes:
        site: The name that the coordinator gave.
        host: Where its server is: a DNS name or an address.
        port: And its port.
        certificate: The site's certificate, PEM.
        authority: The federation's certificate authority, PEM.
        signing_key: Public half of the key that signs studies.
        reply_key: The reply key that the coordinator enrolled.
        node_key: The node key that the coordinator enrolled.
    """

    format: Literal["fedscan.join"] = "fedscan.join"
    version: Literal[1] = 1
    site: Name
    host: Host
    port: Port
    certificate: Pem
    authority: Pem
    signing_key: Base64Key
    reply_key: Base64Key
    node_key: str = Field(max_length=400)


@dataclass(frozen=True)
class Applicant:
    """A request whose keys were all shown to be the sender's.

    Attributes:
        name: The proposed name.
        node_key: As in the request.
        tls_key: Its TLS key.
        reply_key: As in the request.
        fingerprint: To be compared by telephone.
    """

    name: str
    node_key: str
    tls_key: EllipticCurvePublicKey
    reply_key: str
    fingerprint: str


def make_request(
    name: str, node: EllipticCurvePrivateKey, tls: EllipticCurvePrivateKey, reply: Ed25519PrivateKey
) -> bytes:
    """The request of a site, with a proof by each of its keys."""
    body = RequestBody(
        name=name,
        node_key=node_key_text(node.public_key()),
        tls_key=tls.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        reply_key=key_text(reply.public_key()),
        salt=secrets.token_hex(32),
    ).canonical()
    message = _to_sign(body)
    proofs = Proofs(
        node=base64.b64encode(node.sign(message, _NODE_ALGORITHM)).decode(),
        tls=base64.b64encode(tls.sign(message, _TLS_ALGORITHM)).decode(),
        reply=base64.b64encode(reply.sign(message)).decode(),
    )
    return Request(body=body.decode(), proofs=proofs).canonical() + b"\n"


def read_request(raw: bytes) -> Applicant:
    """Verify a request.

    Raises:
        IdentityError: Not a request, a key of another kind, the same key twice, or a proof that is missing or wrong.
    """
    try:
        request = read_record(Request, raw, MAX_REQUEST_BYTES)
        body = read_canonical(RequestBody, request.body.encode(), MAX_REQUEST_BYTES)
    except RecordError as error:
        raise IdentityError(f"the request {error}") from None
    message = _to_sign(request.body.encode())
    node, tls, reply = node_key_of(body.node_key), _tls_key_of(body.tls_key), _reply_key_of(body.reply_key)
    proofs = request.proofs
    _prove("node", lambda: node.verify(base64.b64decode(proofs.node), message, _NODE_ALGORITHM))
    _prove("TLS", lambda: tls.verify(base64.b64decode(proofs.tls), message, _TLS_ALGORITHM))
    _prove("reply", lambda: reply.verify(base64.b64decode(proofs.reply), message))
    return Applicant(body.name, body.node_key, tls, body.reply_key, request_fingerprint(raw))


def request_fingerprint(raw: bytes) -> str:
    """The fingerprint of a request: of its body, which holds all its public keys. Raises IdentityError."""
    try:
        body = read_record(Request, raw, MAX_REQUEST_BYTES).body
    except RecordError as error:
        raise IdentityError(f"the request {error}") from None
    return fingerprint("request", sha256(body.encode()).digest())


def read_join_file(raw: bytes) -> JoinFile:
    """A join file whose form is right; what is in it is for the site to check. Raises IdentityError."""
    try:
        return read_record(JoinFile, raw, MAX_JOIN_BYTES)
    except RecordError as error:
        raise IdentityError(f"the join file {error}") from None


def coordinator_fingerprint(authority_der: bytes, signing_key: str) -> str:
    """The fingerprint of a coordinator: of its authority's certificate and its study-signing key."""
    return fingerprint("coordinator", sha256(authority_der).digest(), signing_key.encode())


def check_site_name(name: str) -> None:
    """Raise StudyError unless `name` may be a site's: it becomes a file name and a certificate's subject."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        rule = "lower-case letters, digits, - and _, first a letter or digit, at most 63"
        raise StudyError(f"{name!r} is not a name for a site: {rule}") from None


def node_key_text(key: EllipticCurvePublicKey) -> str:
    """A node's public key in OpenSSH format, without a comment."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def node_key_of(text: str) -> EllipticCurvePublicKey:
    """The node key that `node_key_text` wrote; raises IdentityError unless it is P-384 in exactly that spelling."""
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise IdentityError("the node key is not a P-384 key in OpenSSH format")
    if node_key_text(key) != text:
        raise IdentityError("the node key is not in its one spelling")
    return key


def _tls_key_of(text: str) -> EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the TLS key is not a P-256 key in PEM")
    return key


def _reply_key_of(text: str) -> Ed25519PublicKey:
    try:
        return key_of(text)
    except SignatureError as error:
        raise IdentityError(f"the reply key: {error}") from None


def _to_sign(body: bytes) -> bytes:
    return signed_bytes(Kind.REQUEST, VERSION, ANY_COORDINATOR, body)


def _prove(which: str, verify: Callable[[], None]) -> None:
    try:
        verify()
    except (InvalidSignature, ValueError):
        raise IdentityError(
            f"the request does not prove that its sender has the {which} key; it was altered or put together from parts"
        ) from None
