"""A site's identity: keys that are made here and never leave, and what the coordinator gave for them.

    site.yaml                  the site's own settings
    federation.json            which certificate, keys and coordinator count now; replaced in one step by `join`
    certificates/HASH.pem      certificates of this site; certificates/authority-HASH.pem the coordinator's authority
    link/node_key              Flower node key (P-384): the site's identity in the federation
    link/tls-N.pem             TLS key (P-256) of generation N
    trainer/reply-N.pem        reply key (Ed25519) of generation N: signs what leaves, out of the link's reach

`link` and `trainer` are folders of mode 0700, so that the two processes can belong to different users.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from common.certificates import (
    read_certificate,
)
from common.enrolment import Host, Port, make_request
from common.errors import IdentityError
from common.keys import (
    PRIVATE,
    load_ec_key,
    load_ed25519_key,
    openssh,
    pem,
    placed,
    private_folder,
    read_small,
    write_new,
)
from common.records import Record, RecordError, Sha256, read_record
from common.section import Name
from common.signing import Base64Key, key_id, key_of

MAX_BYTES = 64 * 1024


class Federation(Record):
    """What counts now (federation.json); nothing in it is secret.

    Attributes:
        site: The name that the coordinator gave.
        host: Where its server is.
        port: And its port.
        signing_key: Public half of the key that signs studies.
        certificate: SHA-256 of this site's certificate.
        authority: SHA-256 of the authority's certificate.
        generation: Which of the site's TLS and reply keys the certificate belongs to.
    """

    format: Literal["fedscan.federation"] = "fedscan.federation"
    version: Literal[1] = 1
    site: Name
    host: Host
    port: Port
    signing_key: Base64Key
    certificate: Sha256
    authority: Sha256
    generation: int = Field(ge=1, le=10_000)


class Identity:
    """The identity in one folder, the one of site.yaml.

    Args:
        home: The folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def node_key_path(self) -> Path:
        """The node key, OpenSSH format; for the link only."""
        return self.home / "link" / "node_key"

    def tls_key_path(self, generation: int) -> Path:
        """The TLS key of a generation; for the link only."""
        return self.home / "link" / f"tls-{generation}.pem"

    def reply_key_path(self, generation: int) -> Path:
        """The reply key of a generation; for the trainer only."""
        return self.home / "trainer" / f"reply-{generation}.pem"

    def certificate_path(self, sha256: str) -> Path:
        """A certificate of this site."""
        return self.home / "certificates" / f"{sha256}.pem"

    def authority_path(self, sha256: str) -> Path:
        """The certificate of the coordinator's authority."""
        return self.home / "certificates" / f"authority-{sha256}.pem"

    def generations(self) -> list[int]:
        """The generations of keys that are there."""
        found = (p.stem.removeprefix("tls-") for p in (self.home / "link").glob("tls-*.pem"))
        return sorted(int(n) for n in found if n.isdigit())

    def node_key(self) -> EllipticCurvePrivateKey:
        """The node key; raises IdentityError."""
        return load_ec_key(self.node_key_path)

    def federation(self) -> Federation:
        """What counts now; raises IdentityError before the site has joined."""
        path = self.home / "federation.json"
        if not path.exists():
            raise IdentityError(f"{self.home} has not joined a federation yet; run: fedscan site join NAME.join")
        try:
            return read_record(Federation, read_small(path, MAX_BYTES), MAX_BYTES)
        except RecordError as error:
            raise placed(path, error) from None

    def link_credentials(self) -> "LinkCredentials":
        """What the link needs, read and checked; raises IdentityError."""
        now = self.federation()
        certificate = _certificate(self.certificate_path(now.certificate))
        tls = self.tls_key_path(now.generation)
        if load_ec_key(tls).public_key() != certificate.public_key():
            raise IdentityError(f"{self.certificate_path(now.certificate)} is not the certificate of {tls}")
        return LinkCredentials(
            site=now.site, host=now.host, port=now.port, node_key=self.node_key(), tls_key=tls,
            certificate=self.certificate_path(now.certificate), authority=self.authority_path(now.authority),
            expires=certificate.not_valid_after_utc,
        )  # fmt: skip

    def trainer_credentials(self) -> "TrainerCredentials":
        """What the trainer needs; raises IdentityError. Reads nothing of the link's."""
        now = self.federation()
        reply = load_ed25519_key(self.reply_key_path(now.generation))
        signer = key_of(now.signing_key)
        return TrainerCredentials(now.site, reply, signer, key_id(signer))


@dataclass(frozen=True)
class LinkCredentials:
    """What the process with the network needs.

    Attributes:
        site: The site's name.
        host: Where the server is.
        port: And its port.
        node_key: Flower node key.
        tls_key: File of the TLS key, for `ssl.SSLContext.load_cert_chain`.
        certificate: File of the site's certificate.
        authority: File of the only authority that the server's certificate may come from.
        expires: When the site's certificate ends.
    """

    site: str
    host: str
    port: int
    node_key: EllipticCurvePrivateKey
    tls_key: Path
    certificate: Path
    authority: Path
    expires: datetime


@dataclass(frozen=True)
class TrainerCredentials:
    """What the process with the scans needs.

    Attributes:
        site: The site's name.
        reply_key: Signs the replies.
        signer: The coordinator's study-signing key.
        coordinator: Its id, to which replies are addressed.
    """

    site: str
    reply_key: Ed25519PrivateKey
    signer: Ed25519PublicKey
    coordinator: str


def make_keys(home: Path, name: str, new_keys: bool = False) -> bytes:
    """Make the keys of a new site, or with `new_keys` the next TLS and reply keys of one that has joined.

    Args:
        home: The site's folder.
        name: The name to propose.
        new_keys: Keep the node key and make the others anew.

    Returns:
        The request for the coordinator.

    Raises:
        IdentityError: There are keys already (or none, for `new_keys`): nothing is written over.
    """
    identity = Identity(home)
    if identity.node_key_path.exists() != new_keys:
        if new_keys:
            raise IdentityError(f"{home} has no keys yet; run: fedscan site init --name {name}")
        raise IdentityError(
            f"{home} has keys already, and they are never written over. The request is NAME-request.json; for new TLS "
            "and reply keys: fedscan site init --new-keys"
        )
    for folder in (home / "link", home / "trainer"):
        private_folder(folder)
    generation = max(identity.generations(), default=0) + 1
    tls, reply = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
    write_new(identity.tls_key_path(generation), pem(tls), PRIVATE)
    write_new(identity.reply_key_path(generation), pem(reply), PRIVATE)
    if new_keys:
        node = identity.node_key()
    else:
        node = ec.generate_private_key(ec.SECP384R1())
        write_new(identity.node_key_path, openssh(node), PRIVATE)
    return make_request(name, node, tls, reply)


def _certificate(path: Path) -> x509.Certificate:
    return read_certificate(read_small(path, MAX_BYTES).decode("utf-8", "replace"), str(path))
