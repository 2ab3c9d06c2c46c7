"""Joining a federation: is this answer for our keys, from an authority that fits, and from whom we think?"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client.identity import Federation, Identity
from common.certificates import CLIENT, certificate_sha256, check_certificate, common_name, read_certificate
from common.disk import write_whole
from common.enrolment import JoinFile, coordinator_fingerprint, node_key_text, read_join_file
from common.errors import IdentityError
from common.keys import PUBLIC, load_ec_key, load_ed25519_key
from common.signing import key_of, key_text


@dataclass(frozen=True)
class Answer:
    """A join file that fits this site's keys.

    Attributes:
        join: The file.
        certificate: The site's certificate.
        authority: The coordinator's authority.
        generation: Which of the site's keys it is for.
        fingerprint: The coordinator's, to be compared by telephone.
        known: Whether it comes from the coordinator that this site has joined already, under the same name.
    """

    join: JoinFile
    certificate: x509.Certificate
    authority: x509.Certificate
    generation: int
    fingerprint: str
    known: bool


def read_answer(home: Path, raw: bytes, now: datetime | None = None) -> Answer:
    """Check a join file against this site's keys and against itself.

    Raises:
        IdentityError: Not a join file, a certificate for other keys or another use, expired, of another authority, or
            for another name than the one in the file.
    """
    identity, join = Identity(home), read_join_file(raw)
    certificate = read_certificate(join.certificate, "the certificate in the join file")
    authority = read_certificate(join.authority, "the authority in the join file")
    check_certificate(certificate, authority, CLIENT, now or datetime.now(UTC))
    if common_name(certificate) != join.site:
        raise IdentityError(f"the certificate is for {common_name(certificate)!r}, the join file for {join.site}")
    generation = _generation(identity, certificate)
    if join.node_key != node_key_text(identity.node_key().public_key()):
        raise IdentityError("the join file was made for another node key: it would never be let in")
    reply = load_ed25519_key(identity.reply_key_path(generation))
    if join.reply_key != key_text(reply.public_key()):
        raise IdentityError("the join file was made for another reply key: no reply would count")
    key_of(join.signing_key)
    fingerprint = coordinator_fingerprint(authority.public_bytes(Encoding.DER), join.signing_key)
    return Answer(join, certificate, authority, generation, fingerprint, _known(identity, join, authority))


def install(home: Path, answer: Answer, replace: bool = False) -> Federation:
    """Make the answer what counts from now on; until the last step the old one does.

    Args:
        home: The site's folder.
        answer: What `read_answer` gave.
        replace: Leave the federation that the site is in for another one, or take another name.

    Raises:
        IdentityError: The site is in another federation and `replace` is not set, or the answer is older than what
            is installed.
        StorageError: It could not be written.
    """
    identity, join = Identity(home), answer.join
    if (home / "federation.json").exists() and not replace:
        if not answer.known:
            old = identity.federation()
            raise IdentityError(
                f"this site is {old.site} in the federation of {old.host}; the join file is for {join.site} in another "
                f"one (or under another name) of {join.host}. If that is meant: --replace"
            )
        installed = read_certificate(
            identity.certificate_path(identity.federation().certificate).read_text(encoding="utf-8"),
            "the installed certificate",
        )
        if answer.certificate.not_valid_after_utc < installed.not_valid_after_utc:
            raise IdentityError("the join file is older than the one that is installed; if it is meant: --replace")
    federation = Federation(
        site=join.site, host=join.host, port=join.port, signing_key=join.signing_key,
        certificate=certificate_sha256(answer.certificate), authority=certificate_sha256(answer.authority),
        generation=answer.generation,
    )  # fmt: skip
    _write(identity.certificate_path(federation.certificate), answer.certificate.public_bytes(Encoding.PEM))
    _write(identity.authority_path(federation.authority), answer.authority.public_bytes(Encoding.PEM))
    _write(home / "federation.json", federation.canonical() + b"\n")
    return federation


def _generation(identity: Identity, certificate: x509.Certificate) -> int:
    for number in reversed(identity.generations()):
        if load_ec_key(identity.tls_key_path(number)).public_key() == certificate.public_key():
            return number
    raise IdentityError("the certificate in the join file is for a key that is not here: it was made for another site")


def _known(identity: Identity, join: JoinFile, authority: x509.Certificate) -> bool:
    if not (identity.home / "federation.json").exists():
        return False
    now = identity.federation()
    return (now.site, now.signing_key, now.authority) == (join.site, join.signing_key, certificate_sha256(authority))


def _write(path: Path, data: bytes) -> None:
    write_whole(path, lambda part: part.write_bytes(data))
    path.chmod(PUBLIC)
