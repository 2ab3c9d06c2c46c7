"""The coordinator's home. Oracle for chains, uses and names: OpenSSL's command line."""

import shutil
import stat
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from common.certificates import CLIENT, SERVER, check_certificate
from common.enrolment import make_request, read_request
from common.errors import IdentityError, StudyError
from server.enrolment.authority import AUTHORITY_LIFE, SERVER_LIFE, SITE_LIFE, Authority
from server.enrolment.backup import back_up, restore
from server.enrolment.enrolled import Enrolment
from server.enrolment.identity import Coordinator, create
from server.enrolment.passphrase import known_passphrase, new_passphrase
from server.enrolment.site_file import Enrolled

PASSPHRASE = b"correct horse battery"
HOSTS = ("fed.example.org", "10.0.0.7", "2001:db8::7")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")


def made(tmp_path: Path, passphrase: bytes = PASSPHRASE) -> Coordinator:
    return create(tmp_path / "home", HOSTS, 8443, passphrase)


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True)


def modes(home: Path) -> dict[str, str]:
    return {str(p.relative_to(home)): oct(stat.S_IMODE(p.stat().st_mode)) for p in home.rglob("*")}


PRIVATE_KEYS = ("offline/authority.pem", "offline/signing.pem", "online/round.pem", "online/tls.pem")


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    home = made(tmp_path).home
    found = modes(home)
    assert {found[name] for name in PRIVATE_KEYS} == {"0o600"}
    assert {found[name] for name in ("offline", "online", "enrolment", "enrolment/sites")} == {"0o700"}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_offline_keys_open_with_the_passphrase_only(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    keys = coordinator.unlock(PASSPHRASE)
    assert keys.signing.public_key() == coordinator.signing_key
    for wrong in (b"", b"correct horse batterY"):
        with pytest.raises(IdentityError, match="passphrase"):
            coordinator.unlock(wrong)
    for name in ("authority", "signing"):
        text = (coordinator.home / "offline" / f"{name}.pem").read_text()
        assert text.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


@needs_openssl
def test_openssl_opens_the_offline_keys_too(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    path = str(coordinator.home / "offline" / "authority.pem")
    assert openssl("pkey", "-in", path, "-noout", "-passin", f"pass:{PASSPHRASE.decode()}").returncode == 0
    assert openssl("pkey", "-in", path, "-noout", "-passin", "pass:wrong").returncode != 0


def test_offline_keys_may_lie_elsewhere(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    shutil.move(coordinator.home / "offline", tmp_path / "stick")
    again = Coordinator(coordinator.home)
    again.check()
    with pytest.raises(IdentityError, match="--keys"):
        again.unlock(PASSPHRASE)
    again.unlock(PASSPHRASE, tmp_path / "stick")
    other = create(tmp_path / "other", HOSTS, 8443, PASSPHRASE)
    with pytest.raises(IdentityError, match="another coordinator"):
        other.unlock(PASSPHRASE, tmp_path / "stick")


@pytest.mark.parametrize("left", ["coordinator.json", "offline", "online", "authority.pem", "enrolment"])
def test_nothing_is_ever_written_over(left: str, tmp_path: Path) -> None:
    home = made(tmp_path).home
    for path in home.iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    with pytest.raises(IdentityError, match="never written over"):
        create(home, HOSTS, 8443, PASSPHRASE)
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "host",
    [
        "",
        "https://fed.example.org",
        "fed.example.org:8443",
        "a b",
        "-a.org",
        "a..b",
        "*.org",
        "fed/x",
        "300.1.1.1",
        "a\n",
    ],
)
def test_a_host_is_a_name_or_an_address(host: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="neither a DNS name nor an IP address"):
        create(tmp_path / "home", [host], 8443, PASSPHRASE)
    assert not (tmp_path / "home").exists()


@needs_openssl
@pytest.mark.parametrize(
    ("name", "ok"),
    [(("-verify_hostname", "fed.example.org"), True), (("-verify_hostname", "other.example.org"), False),
     (("-verify_ip", "10.0.0.7"), True), (("-verify_ip", "2001:db8::7"), True), (("-verify_ip", "10.0.0.8"), False),
     (("-purpose", "sslserver"), True), (("-purpose", "sslclient"), False)],
)  # fmt: skip
def test_openssl_verifies_the_server_certificate(name: tuple[str, str], ok: bool, tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    result = openssl("verify", "-x509_strict", "-CAfile", str(coordinator.authority_path), *name,
                     str(coordinator.tls_certificate_path))  # fmt: skip
    assert (result.returncode == 0) == ok, result.stderr


@needs_openssl
@pytest.mark.parametrize(("purpose", "ok"), [("sslclient", True), ("sslserver", False)])
def test_openssl_takes_a_site_certificate_for_clients_only(purpose: str, ok: bool, tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = coordinator.unlock(PASSPHRASE).authority.issue_site("oslo", key.public_key())
    path = tmp_path / "oslo.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    arguments = ("verify", "-x509_strict", "-CAfile", str(coordinator.authority_path), "-purpose", purpose, str(path))
    assert (openssl(*arguments).returncode == 0) == ok
    assert "CN = oslo" in openssl("x509", "-in", str(path), "-noout", "-subject").stdout
    # A site's certificate issues nothing.
    issued = Authority(key, certificate).issue_site("bergen", key.public_key())
    (tmp_path / "bergen.pem").write_bytes(issued.public_bytes(Encoding.PEM))
    chain = ("-CAfile", str(coordinator.authority_path), "-untrusted", str(path), str(tmp_path / "bergen.pem"))
    assert openssl("verify", *chain).returncode != 0


def test_certificates_are_checked_against_authority_use_and_time() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    authority, other = Authority.new("a", now), Authority.new("a", now)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    site, server = authority.issue_site("oslo", key, now), authority.issue_server(["a"], key, now)
    check_certificate(site, authority.certificate, CLIENT, now)
    check_certificate(server, authority.certificate, SERVER, now)
    for certificate, by, use, when, says in (
        (site, other.certificate, CLIENT, now, "another authority"),
        (site, site, CLIENT, now, "may not issue"),
        (server, authority.certificate, CLIENT, now, "not one for a site"),
        (site, authority.certificate, SERVER, now, "not one for a server"),
        (authority.certificate, authority.certificate, CLIENT, now, "does not say what it is for"),
        (site, authority.certificate, CLIENT, now + SITE_LIFE + timedelta(seconds=1), "expired"),
        (site, authority.certificate, CLIENT, now - timedelta(hours=2), "set the clock"),
        (
            site,
            authority.certificate,
            CLIENT,
            now + AUTHORITY_LIFE + timedelta(days=1),
            "authority's certificate expired",
        ),
    ):
        with pytest.raises(IdentityError, match=says):
            check_certificate(certificate, by, use, when)


def test_no_certificate_outlives_the_authority() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    authority = Authority.new("a", start)
    late = start + AUTHORITY_LIFE - timedelta(days=3)
    issued = authority.issue_server(["a"], ec.generate_private_key(ec.SECP256R1()).public_key(), late)
    assert issued.not_valid_after_utc == authority.certificate.not_valid_after_utc < late + SERVER_LIFE


def test_the_server_certificate_is_renewed_for_the_same_key(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    old = coordinator.server_certificate()
    coordinator.renew_server_certificate(coordinator.unlock(PASSPHRASE), ["new.example.org"])
    again = Coordinator(coordinator.home)
    again.check()
    new = again.server_certificate()
    assert (new.public_key(), new.serial_number == old.serial_number) == (old.public_key(), False)
    assert again.card.hosts == ("new.example.org",)
    assert again.fingerprint() == coordinator.fingerprint()


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    path = coordinator.home / "online" / "round.pem"
    path.chmod(0o604)
    with pytest.raises(IdentityError, match="chmod 600"):
        coordinator.round_key()


def test_exchanged_parts_are_seen(tmp_path: Path) -> None:
    coordinator, other = made(tmp_path), made(tmp_path / "x")
    for name, says in (("round.pem", "not the online key"), ("tls.pem", "not the certificate")):
        path = coordinator.home / "online" / name
        kept = path.read_bytes()
        path.write_bytes((other.home / "online" / name).read_bytes())
        with pytest.raises(IdentityError, match=says):
            coordinator.check()
        path.write_bytes(kept)
    coordinator.check()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "fedscan.coordinator"}', "\x00"])
def test_a_damaged_home_is_said(text: str, tmp_path: Path) -> None:
    home = made(tmp_path).home
    (home / "coordinator.json").write_text(text)
    with pytest.raises(IdentityError, match=r"coordinator\.json"):
        Coordinator(home)
    with pytest.raises(IdentityError, match="server init"):
        Coordinator(tmp_path / "nowhere")


def test_weak_passphrases_need_to_be_meant(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    for text, weak in (("", True), ("short", True), ("elevenchars", True), ("twelve chars", False)):
        file.write_text(f"{text}\n")
        file.chmod(0o600)
        if weak:
            with pytest.raises(IdentityError, match="--allow-weak-passphrase"):
                new_passphrase(file, allow_weak=False)
        assert new_passphrase(file, allow_weak=weak) == text.encode()
        assert known_passphrase(file) == text.encode()
    file.chmod(0o644)
    with pytest.raises(IdentityError, match="can be read by others"):
        known_passphrase(file)


def enrol(coordinator: Coordinator, name: str) -> str:
    node, tls = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    applicant = read_request(make_request(name, node, tls, Ed25519PrivateKey.generate()))
    enrolment = Enrolment(coordinator.enrolment_folder, coordinator.card)
    enrolment.add(applicant, name, coordinator.unlock(PASSPHRASE).authority)
    return Enrolled(coordinator.enrolment_folder).sites()[0].certificate_sha256


def test_a_restored_backup_is_the_same_coordinator(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    certificate = enrol(coordinator, "oslo")
    file = tmp_path / "backup.tar"
    back_up(coordinator, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(IdentityError, match="exists already"):
        back_up(coordinator, file)
    with pytest.raises(IdentityError, match="never written over"):
        restore(file, coordinator.home)
    before = modes(coordinator.home)
    shutil.rmtree(coordinator.home)
    back = restore(file, tmp_path / "new")
    assert modes(back.home) == before
    assert (back.id, back.fingerprint()) == (coordinator.id, coordinator.fingerprint())
    back.unlock(PASSPHRASE)
    site = Enrolled(back.enrolment_folder).by_certificate(certificate)
    assert site is not None
    assert (site.name, site.revoked) == ("oslo", False)


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    coordinator = made(tmp_path)
    whole = tmp_path / "backup.tar"
    back_up(coordinator, whole)
    strange, torn = tmp_path / "strange.tar", tmp_path / "torn.tar"
    with tarfile.open(strange, "w") as tar:
        tar.add(coordinator.home / "coordinator.json", arcname="online/../../escaped.json")
    torn.write_bytes(whole.read_bytes()[:5000])
    for number, file in enumerate((strange, torn, tmp_path / "none.tar", coordinator.home / "coordinator.json")):
        with pytest.raises(IdentityError):
            restore(file, tmp_path / f"new{number}")
    assert not (tmp_path / "escaped.json").exists()
