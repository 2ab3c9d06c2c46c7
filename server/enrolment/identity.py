"""The coordinator's home: its keys and certificates, and where each of them lies.

coordinator.json     what everyone may know: id, hosts, port, public keys
authority.pem        certificate of the federation's authority
offline/             authority.pem and signing.pem, encrypted with one passphrase; the running server never reads
                     them, so the folder can lie on a stick in a safe (`--keys FOLDER` names it then)
online/              round.pem, tls.pem, tls-certificate.pem: what the running server needs, no passphrase
enrolment/           the sites (server/enrolment/enrolled.py)
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AwareDatetime, Field

from common.certificates import SERVER, check_certificate, read_certificate
from common.disk import write_whole
from common.enrolment import Host, Port, coordinator_fingerprint
from common.errors import IdentityError, StudyError
from common.keys import (
    PRIVATE,
    PUBLIC,
    load_ec_key,
    load_ed25519_key,
    pem,
    placed,
    private_folder,
    read_small,
    write_new,
)
from common.records import Record, RecordError, Sha256, read_record
from common.signing import Base64Key, key_id, key_of, key_text
from server.enrolment.authority import Authority

MAX_BYTES = 64 * 1024
DEFAULT_PORT = 8443
_DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?", re.IGNORECASE)


class Card(Record):
    """What everyone may know of a coordinator (coordinator.json).

    Attributes:
        id: Id of its study-signing key; what sites sign is addressed to it.
        hosts: DNS names and addresses of its server; sites are given the first.
        port: Port of its server.
        signing_key: Public half of the study-signing key.
        round_key: Public half of the online key.
        created: When.
    """

    format: Literal["fedscan.coordinator"] = "fedscan.coordinator"
    version: Literal[1] = 1
    id: Sha256
    hosts: tuple[Host, ...] = Field(min_length=1, max_length=100)
    port: Port
    signing_key: Base64Key
    round_key: Base64Key
    created: AwareDatetime


@dataclass(frozen=True)
class OfflineKeys:
    """The unlocked keys that only an operator's command uses.

    Attributes:
        authority: Issues certificates.
        signing: Signs studies and run orders.
    """

    authority: Authority
    signing: Ed25519PrivateKey


class Coordinator:
    """The identity in one home folder.

    Args:
        home: The folder.

    Raises:
        IdentityError: There is none, or it is damaged.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        path = home / "coordinator.json"
        if not path.exists():
            raise IdentityError(f"{home} holds no coordinator; make one with: fedscan server init --home {home}")
        try:
            self.card = read_record(Card, read_small(path, MAX_BYTES), MAX_BYTES)
        except RecordError as error:
            raise placed(path, error) from None
        text = read_small(self.authority_path, MAX_BYTES).decode("utf-8", "replace")
        self.authority_certificate = read_certificate(text, str(self.authority_path))

    @property
    def id(self) -> str:
        """Id of the study-signing key."""
        return self.card.id

    @property
    def signing_key(self) -> Ed25519PublicKey:
        """Public half of the study-signing key."""
        return key_of(self.card.signing_key)

    @property
    def authority_path(self) -> Path:
        """Certificate of the authority: what the server's TLS trusts for clients."""
        return self.home / "authority.pem"

    @property
    def tls_key_path(self) -> Path:
        """The server's TLS key."""
        return self.home / "online" / "tls.pem"

    @property
    def tls_certificate_path(self) -> Path:
        """The server's certificate."""
        return self.home / "online" / "tls-certificate.pem"

    @property
    def enrolment_folder(self) -> Path:
        """Where the sites are."""
        return self.home / "enrolment"

    def fingerprint(self) -> str:
        """The five groups that a hospital compares by telephone before it joins."""
        return coordinator_fingerprint(self.authority_certificate.public_bytes(Encoding.DER), self.card.signing_key)

    def server_certificate(self) -> x509.Certificate:
        """The server's certificate as it lies on disk."""
        text = read_small(self.tls_certificate_path, MAX_BYTES).decode("utf-8", "replace")
        return read_certificate(text, str(self.tls_certificate_path))

    def round_key(self) -> Ed25519PrivateKey:
        """The online key that signs manifests; raises IdentityError."""
        path = self.home / "online" / "round.pem"
        key = load_ed25519_key(path)
        if key_text(key.public_key()) != self.card.round_key:
            raise IdentityError(f"{path} is not the online key of this coordinator")
        return key

    def unlock(self, passphrase: bytes, keys: Path | None = None) -> OfflineKeys:
        """The offline keys.

        Args:
            passphrase: Of both.
            keys: Where they lie, when not in the home.

        Raises:
            IdentityError: They are not there, the passphrase is wrong, or they belong to another coordinator.
        """
        folder = keys or self.home / "offline"
        if not folder.is_dir():
            raise IdentityError(
                f"{folder} is not there; if the offline keys lie elsewhere, name their folder with --keys"
            )
        authority = load_ec_key(folder / "authority.pem", passphrase)
        signing = load_ed25519_key(folder / "signing.pem", passphrase)
        belongs = authority.public_key() == self.authority_certificate.public_key()
        if not belongs or key_id(signing.public_key()) != self.id:
            raise IdentityError(f"the keys in {folder} belong to another coordinator than {self.home}")
        return OfflineKeys(Authority(authority, self.authority_certificate), signing)

    def renew_server_certificate(self, keys: OfflineKeys, hosts: Sequence[str] = ()) -> x509.Certificate:
        """Issue a new certificate for the server's TLS key and put it in place of the old one.

        Args:
            keys: The unlocked offline keys.
            hosts: New names and addresses, when they changed.
        """
        card = self.card.model_copy(update={"hosts": tuple(hosts)}) if hosts else self.card
        for host in card.hosts:
            check_host(host)
        key = load_ec_key(self.tls_key_path)
        certificate = keys.authority.issue_server(card.hosts, key.public_key())
        _replace(self.tls_certificate_path, certificate.public_bytes(Encoding.PEM))
        _replace(self.home / "coordinator.json", card.canonical() + b"\n")
        self.card = card
        return certificate

    def check(self) -> None:
        """Raise IdentityError unless what the running server needs is all there and fits together."""
        self.round_key()
        key = load_ec_key(self.tls_key_path)
        certificate = self.server_certificate()
        if certificate.public_key() != key.public_key():
            raise IdentityError(f"{self.tls_certificate_path} is not the certificate of {self.tls_key_path}")
        check_certificate(certificate, self.authority_certificate, SERVER, datetime.now(UTC))


def create(home: Path, hosts: Sequence[str], port: int, passphrase: bytes) -> Coordinator:
    """Make a coordinator's identity in `home`.

    Args:
        home: A folder without one.
        hosts: DNS names and IP addresses under which sites reach the server; sites are given the first.
        port: The server's port.
        passphrase: Encrypts the offline keys; empty leaves them in the clear.

    Raises:
        IdentityError: There is an identity, or a part of one: nothing is ever written over.
        StudyError: A host is neither a DNS name nor an address.
    """
    for host in hosts:
        check_host(host)
    for name in ("coordinator.json", "authority.pem", "offline", "online", "enrolment"):
        if (home / name).exists():
            raise IdentityError(
                f"{home / name} exists already: a coordinator's keys are never written over. Choose another --home, "
                "or, if an interrupted init left it, move it away"
            )
    for folder in (home, home / "offline", home / "online", home / "enrolment", home / "enrolment" / "sites"):
        private_folder(folder)
    authority, signing = Authority.new(hosts[0]), Ed25519PrivateKey.generate()
    round_key, tls = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    card = Card(
        id=key_id(signing.public_key()), hosts=tuple(hosts), port=port, signing_key=key_text(signing.public_key()),
        round_key=key_text(round_key.public_key()), created=datetime.now(UTC).replace(microsecond=0),
    )  # fmt: skip
    for where, data, mode in (
        ("offline/authority.pem", authority.pem(passphrase), PRIVATE),
        ("offline/signing.pem", pem(signing, passphrase), PRIVATE),
        ("online/round.pem", pem(round_key), PRIVATE),
        ("online/tls.pem", pem(tls), PRIVATE),
        ("online/tls-certificate.pem", _pem(authority.issue_server(hosts, tls.public_key())), PUBLIC),
        ("authority.pem", _pem(authority.certificate), PUBLIC),
        # Last: a home without it is no identity yet.
        ("coordinator.json", card.canonical() + b"\n", PUBLIC),
    ):
        write_new(home / where, data, mode)
    return Coordinator(home)


def check_host(host: str) -> None:
    """Raise StudyError unless `host` is a DNS name or an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        numeric = host.rpartition(".")[2].isdigit()  # 300.1.1.1 is meant as an address
        if len(host) > 253 or numeric or not _DNS_NAME.fullmatch(host):
            raise StudyError(
                f"{host!r} is neither a DNS name nor an IP address; give it without https:// and port"
            ) from None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _replace(path: Path, data: bytes) -> None:
    write_whole(path, lambda part: part.write_bytes(data))
    path.chmod(PUBLIC)
