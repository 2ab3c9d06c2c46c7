"""A site's keys and its joining. The answers come from a real authority; the hostile ones from a real one, misused."""

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, load_ssh_private_key
from cryptography.x509.oid import NameOID

from client.desk.joining import Answer, install, read_answer
from client.identity import Identity, make_keys
from common.enrolment import JoinFile, read_request
from common.errors import IdentityError
from common.signing import key_text
from server.enrolment.authority import SITE_LIFE, Authority

AUTHORITY, OTHER = Authority.new("fed.example.org"), Authority.new("other.example.org")
SIGNING, OTHER_SIGNING = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2))


def answer(home: Path, by: Authority = AUTHORITY, request: bytes | None = None, **changes: Any) -> JoinFile:
    """What a coordinator answers to the site in `home`."""
    if request is None:
        request = next(home.glob("request*")).read_bytes()
    applicant = read_request(request)
    fields = {
        "site": applicant.name, "host": "fed.example.org", "port": 8443,
        "certificate": pem(by.issue_site(applicant.name, applicant.tls_key)),
        "authority": pem(by.certificate), "signing_key": key_text(SIGNING.public_key()),
        "reply_key": applicant.reply_key, "node_key": applicant.node_key,
    }  # fmt: skip
    return JoinFile(**{**fields, **changes})


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def new_site(home: Path, name: str = "oslo") -> Path:
    home.mkdir()
    (home / "request").write_bytes(make_keys(home, name))
    return home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_site(tmp_path / "oslo")


def read(home: Path, join: JoinFile, now: datetime | None = None) -> Answer:
    return read_answer(home, join.canonical(), now)


def test_keys_are_made_for_their_owner_only(home: Path) -> None:
    modes = {str(p.relative_to(home)): stat.S_IMODE(p.stat().st_mode) for p in home.rglob("*")}
    assert {k: v for k, v in modes.items() if k != "request"} == {
        "link": 0o700, "trainer": 0o700, "link/node_key": 0o600, "link/tls-1.pem": 0o600, "trainer/reply-1.pem": 0o600,
    }  # fmt: skip
    key = load_ssh_private_key((home / "link" / "node_key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)


def test_keys_are_never_written_over(home: Path) -> None:
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    with pytest.raises(IdentityError, match="never written over"):
        make_keys(home, "oslo")
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before
    with pytest.raises(IdentityError, match="no keys yet"):
        make_keys(home / "new", "oslo", new_keys=True)


def test_a_site_joins(home: Path) -> None:
    with pytest.raises(IdentityError, match="not joined"):
        Identity(home).federation()
    found = read(home, answer(home))
    assert (found.generation, found.known) == (1, False)
    install(home, found)
    link, trainer = Identity(home).link_credentials(), Identity(home).trainer_credentials()
    assert (link.site, link.host, link.port) == ("oslo", "fed.example.org", 8443)
    assert trainer.signer == SIGNING.public_key()
    assert (link.expires, trainer.site) == (found.certificate.not_valid_after_utc, "oslo")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_verifies_what_was_installed(home: Path) -> None:
    install(home, read(home, answer(home)))
    link = Identity(home).link_credentials()
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(link.authority)]
    assert subprocess.run([*command, str(link.certificate)], capture_output=True).returncode == 0
    certificate = subprocess.run(
        ["openssl", "x509", "-in", str(link.certificate), "-noout", "-pubkey"], capture_output=True
    )
    key = subprocess.run(["openssl", "pkey", "-in", str(link.tls_key), "-pubout"], capture_output=True)
    assert certificate.stdout == key.stdout != b""


def test_the_trainer_reads_nothing_of_the_link_and_the_link_nothing_of_the_trainer(home: Path) -> None:
    install(home, read(home, answer(home)))
    (home / "link").rename(home / "away")
    Identity(home).trainer_credentials()
    with pytest.raises(IdentityError):
        Identity(home).link_credentials()
    (home / "away").rename(home / "link")
    (home / "trainer").rename(home / "away")
    Identity(home).link_credentials()
    with pytest.raises(IdentityError):
        Identity(home).trainer_credentials()


def self_made(home: Path, ca: bool = False) -> JoinFile:
    """An answer whose certificate is its own authority."""
    tls = Identity(home).tls_key_path(1).read_bytes()
    key: Any = load_pem_private_key(tls, None)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "oslo")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return answer(home, certificate=pem(certificate), authority=pem(certificate))


def server_certificate(home: Path) -> str:
    key = read_request((home / "request").read_bytes()).tls_key
    return pem(AUTHORITY.issue_server(["oslo"], key))


def site_of_other(home: Path) -> JoinFile:
    return answer(new_site(home.parent / "bergen", "bergen"))


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a certificate for another key": (site_of_other, "key that is not here"),
    "a certificate of another authority": (lambda h: answer(h, OTHER).model_copy(
        update={"authority": pem(AUTHORITY.certificate)}), "another authority"),
    "the certificate as its own authority": (lambda h: self_made(h), "may not issue"),
    "the certificate as its own authority, allowed to": (lambda h: self_made(h, ca=True), "does not say what"),
    "a server's certificate": (lambda h: answer(h, certificate=server_certificate(h)), "not one for a site"),
    "the authority as certificate": (lambda h: answer(h, certificate=pem(AUTHORITY.certificate)), "what it is for"),
    "another name in the certificate": (lambda h: answer(h, site="bergen"), "the join file for bergen"),
    "another reply key": (lambda h: answer(h, reply_key=key_text(SIGNING.public_key())), "another reply key"),
    "another node key": (lambda h: answer(h, node_key="ecdsa-sha2-nistp384 AAAA"), "another node key"),
    "two certificates": (lambda h: answer(h, certificate=answer(h).certificate * 2), "not one certificate"),
    "no certificate": (lambda h: answer(h, certificate="x"), "not one certificate"),
    "no authority": (lambda h: answer(h, authority=""), "not one certificate"),
    "an unknown key": (lambda h: {**json.loads(answer(h).canonical()), "run": "x"}, "run: "),
    "a key that is missing": (lambda h: {k: v for k, v in json.loads(answer(h).canonical()).items() if k != "host"},
                              "host: "),
    "a private key": (lambda h: {**json.loads(answer(h).canonical()), "key": "-----BEGIN PRIVATE KEY-----"}, "key: "),
    "an address that is none": (lambda h: {**json.loads(answer(h).canonical()), "host": "a/b?c"}, "host: "),
    "a port that is none": (lambda h: {**json.loads(answer(h).canonical()), "port": 0}, "port: "),
    "a name with a path": (lambda h: {**json.loads(answer(h).canonical()), "site": "../x"}, "site: "),
    "another version": (lambda h: {**json.loads(answer(h).canonical()), "version": 2}, "version: "),
    "a request": (lambda h: json.loads((h / "request").read_bytes()), "format: "),
    "huge": (lambda h: {"format": "x" * 100_000}, "at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_answers_are_refused_and_nothing_is_installed(case: str, home: Path) -> None:
    make, says = HOSTILE[case]
    made = make(home)
    raw = made.canonical() if isinstance(made, JoinFile) else json.dumps(made).encode()
    before = sorted(home.rglob("*"))
    with pytest.raises(IdentityError, match=says):
        read_answer(home, raw)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"oslo", b"[]", b"[" * 60_000])
def test_what_is_no_join_file_is_refused(raw: bytes, home: Path) -> None:
    with pytest.raises(IdentityError, match="the join file"):
        read_answer(home, raw)


def test_an_expired_answer_or_a_wrong_clock_is_refused(home: Path) -> None:
    join, now = answer(home), datetime.now(UTC)
    with pytest.raises(IdentityError, match="expired"):
        read(home, join, now + SITE_LIFE + timedelta(days=1))
    with pytest.raises(IdentityError, match="set the clock"):
        read(home, join, now - timedelta(days=1))


def test_the_fingerprint_changes_with_authority_and_signing_key(home: Path) -> None:
    shown = {
        read(home, join).fingerprint
        for join in (
            answer(home),
            answer(home, host="elsewhere.example.org"),
            answer(home, OTHER),
            answer(home, signing_key=key_text(OTHER_SIGNING.public_key())),
        )
    }
    assert len(shown) == 3


def test_another_federation_takes_over_only_when_it_is_meant(home: Path) -> None:
    install(home, read(home, answer(home)))
    before = (home / "federation.json").read_bytes()
    for join in (answer(home, OTHER), answer(home, signing_key=key_text(OTHER_SIGNING.public_key()))):
        with pytest.raises(IdentityError, match="--replace"):
            install(home, read(home, join))
    assert (home / "federation.json").read_bytes() == before
    install(home, read(home, answer(home, OTHER)), replace=True)
    assert (home / "federation.json").read_bytes() != before


def test_a_renewal_is_installed_and_an_older_answer_is_not(home: Path) -> None:
    applicant = read_request((home / "request").read_bytes())
    earlier = AUTHORITY.issue_site("oslo", applicant.tls_key, datetime.now(UTC) - timedelta(days=200))
    old = answer(home, certificate=pem(earlier))
    install(home, read(home, old))
    found = read(home, answer(home))
    assert found.known
    install(home, found)
    link = Identity(home).link_credentials()
    assert link.expires == found.certificate.not_valid_after_utc
    with pytest.raises(IdentityError, match="older"):
        install(home, read(home, old))


def test_new_keys_wait_until_their_answer_comes(home: Path) -> None:
    install(home, read(home, answer(home)))
    before = Identity(home).link_credentials()
    request = make_keys(home, "oslo", new_keys=True)
    assert Identity(home).link_credentials().tls_key == before.tls_key
    found = read(home, answer(home, request=request))
    assert (found.generation, found.known) == (2, True)
    install(home, found)
    after = Identity(home).link_credentials()
    assert after.tls_key != before.tls_key
    assert after.node_key.public_key() == before.node_key.public_key()
    # The old pair is there still: the answer for it can be installed again.
    assert read(home, answer(home)).generation == 1


@pytest.mark.parametrize("text", ["", "{}", "null", '{"site": "x"}'])
def test_a_damaged_federation_file_is_said(text: str, home: Path) -> None:
    install(home, read(home, answer(home)))
    (home / "federation.json").write_text(text)
    with pytest.raises(IdentityError, match=r"federation\.json"):
        Identity(home).trainer_credentials()
