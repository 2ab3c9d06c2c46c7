"""The site's keys and certificates as the link uses them."""

import ssl
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.identity import Identity
from common.errors import IdentityError


@dataclass(frozen=True)
class Credentials:
    """What the link shows the coordinator, and whom it believes.

    Attributes:
        stamp: Of the file from which it was read: another stamp, other credentials.
        host: The coordinator's.
        port: The coordinator's.
        key: The node's, which signs requests.
        public: Its public half, PEM.
        context: TLS 1.3 with both sides' certificates.
    """

    stamp: tuple[int, int]
    host: str
    port: int
    key: ec.EllipticCurvePrivateKey
    public: bytes
    context: ssl.SSLContext


def load(identity: Identity, stamp: tuple[int, int]) -> Credentials:
    """The credentials on disk; raises IdentityError."""
    found = identity.link_credentials()
    # Not ssl.create_default_context, which would also write session keys where an environment variable says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(found.authority)
        context.load_cert_chain(found.certificate, found.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"{found.certificate}, {found.authority}: cannot be used ({error})") from None
    public = found.node_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Credentials(stamp, found.host, found.port, found.node_key, public, context)
