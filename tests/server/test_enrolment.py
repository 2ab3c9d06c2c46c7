"""Requests and the enrolled sites on disk."""

import base64
import json
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.certificates import certificate_sha256, common_name, read_certificate
from common.enrolment import (
    ANY_COORDINATOR,
    Applicant,
    JoinFile,
    make_request,
    node_key_of,
    node_key_text,
    read_request,
    request_fingerprint,
)
from common.errors import IdentityError, StudyError
from common.signing import Kind, key_id, key_of, key_text, signed_bytes
from server.enrolment.authority import Authority
from server.enrolment.enrolled import KEY_CHANGE, Enrolment
from server.enrolment.identity import Card
from server.enrolment.site_file import Enrolled

AUTHORITY = Authority.new("fed.example.org")
SIGNING = key_text(Ed25519PrivateKey.generate().public_key())
CARD = Card(id="0" * 64, hosts=("fed.example.org",), port=8443, signing_key=SIGNING, round_key=SIGNING,
            created=datetime.now(UTC))  # fmt: skip


class Keys:
    """The private halves of a site."""

    def __init__(self, node: Any = None) -> None:
        self.node = node or ec.generate_private_key(ec.SECP384R1())
        self.tls = ec.generate_private_key(ec.SECP256R1())
        self.reply = Ed25519PrivateKey.generate()

    def request(self, name: str = "oslo") -> bytes:
        return make_request(name, self.node, self.tls, self.reply)

    def applicant(self, name: str = "oslo") -> Applicant:
        return read_request(self.request(name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sites").mkdir()
    return tmp_path


def sha256_of(join: JoinFile) -> str:
    return certificate_sha256(read_certificate(join.certificate, "it"))


# Requests


def test_a_request_shows_its_keys_and_its_fingerprint() -> None:
    keys = Keys()
    raw = keys.request()
    applicant = read_request(raw)
    assert (applicant.name, applicant.fingerprint) == ("oslo", request_fingerprint(raw))
    assert applicant.tls_key == keys.tls.public_key()
    assert node_key_of(applicant.node_key) == keys.node.public_key()
    assert key_of(applicant.reply_key) == keys.reply.public_key()
    assert request_fingerprint(keys.request()) != applicant.fingerprint


ONE, TWO = json.loads(Keys().request()), json.loads(Keys().request())


def body_with(**changes: Any) -> dict[str, Any]:
    body = {**json.loads(ONE["body"]), **changes}
    return {**ONE, "body": json.dumps(body, sort_keys=True, separators=(",", ":"))}


def proven(**changes: Any) -> dict[str, Any]:
    """A request whose proofs are good, over a body that its maker chose."""
    keys = Keys()
    body = {**json.loads(json.loads(keys.request())["body"]), **changes}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    message = signed_bytes(Kind.REQUEST, 1, ANY_COORDINATOR, text.encode())
    proofs = {
        "node": keys.node.sign(message, ec.ECDSA(hashes.SHA384())),
        "tls": keys.tls.sign(message, ec.ECDSA(hashes.SHA256())),
        "reply": keys.reply.sign(message),
    }
    return {**ONE, "body": text, "proofs": {k: base64.b64encode(v).decode() for k, v in proofs.items()}}


def spki_pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


HOSTILE_REQUESTS: dict[str, Callable[[], Any]] = {
    "node key of another site": lambda: body_with(node_key=json.loads(TWO["body"])["node_key"]),
    "TLS key of another site": lambda: body_with(tls_key=json.loads(TWO["body"])["tls_key"]),
    "reply key of another site": lambda: body_with(reply_key=json.loads(TWO["body"])["reply_key"]),
    "name altered after signing": lambda: body_with(name="bergen"),
    "proofs of another request": lambda: {**ONE, "proofs": TWO["proofs"]},
    "node proof missing": lambda: {**ONE, "proofs": {k: v for k, v in ONE["proofs"].items() if k != "node"}},
    "TLS proof empty": lambda: {**ONE, "proofs": {**ONE["proofs"], "tls": ""}},
    "reply proof of zeros": lambda: {**ONE, "proofs": {**ONE["proofs"], "reply": base64.b64encode(bytes(64)).decode()}},
    "proofs exchanged": lambda: {**ONE, "proofs": {**ONE["proofs"], "node": ONE["proofs"]["tls"]}},
    "an unknown key": lambda: {**ONE, "more": 1},
    "an unknown key in the body": lambda: proven(more=1),
    "another version": lambda: {**ONE, "version": 2},
    "another format": lambda: {**ONE, "format": "fedscan.join"},
    "name with a path": lambda: proven(name="../../etc/passwd"),
    "name with a slash": lambda: proven(name="a/b"),
    "name with a line break": lambda: proven(name="oslo\n"),
    "name that begins with a dash": lambda: proven(name="-rf"),
    "name of another script": lambda: proven(name="оslo"),
    "name too long": lambda: proven(name="a" * 64),
    "no name": lambda: proven(name=""),
    "RSA as TLS key": lambda: proven(tls_key=spki_pem(rsa.generate_private_key(65537, 2048))),
    "P-384 as TLS key": lambda: proven(tls_key=spki_pem(ec.generate_private_key(ec.SECP384R1()))),
    "P-256 as node key": lambda: proven(node_key=node_key_text(ec.generate_private_key(ec.SECP256R1()).public_key())),
    "node key with a comment": lambda: body_with(node_key=json.loads(ONE["body"])["node_key"] + " oslo"),
    "private key in it": lambda: proven(tls_key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    "a body that is not canonical": lambda: {**ONE, "body": " " + ONE["body"]},
    "a body that is an object": lambda: {**ONE, "body": json.loads(ONE["body"])},
    "a list": lambda: [ONE],
    "huge": lambda: {**ONE, "more": "x" * 20_000},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_REQUESTS)
def test_hostile_requests_are_refused(case: str) -> None:
    with pytest.raises(IdentityError, match=r"the request|key"):
        read_request(json.dumps(HOSTILE_REQUESTS[case]()).encode())


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{", b"[" * 15_000, b"PK\x03\x04", json.dumps(ONE).encode() * 2])
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    with pytest.raises(IdentityError, match="the request"):
        read_request(raw)


def test_the_controls_of_the_hostile_table_are_requests() -> None:
    assert read_request(json.dumps(ONE).encode()).name == "oslo"
    assert read_request(json.dumps(proven(name="bergen")).encode()).name == "bergen"


# Sites


def test_the_coordinator_names_the_site_and_binds_its_keys(folder: Path) -> None:
    keys = Keys()
    join = Enrolment(folder, CARD).add(keys.applicant("oslo"), "ous-rikshospitalet", AUTHORITY)
    certificate = read_certificate(join.certificate, "it")
    assert (join.site, common_name(certificate)) == ("ous-rikshospitalet",) * 2
    assert certificate.public_key() == keys.tls.public_key()
    site = Enrolled(folder).by_certificate(certificate_sha256(certificate))
    assert site is not None
    assert (site.name, site.node_key, site.reply_key, site.revoked, site.expires) == (
        "ous-rikshospitalet", node_key_text(keys.node.public_key()), key_text(keys.reply.public_key()), False,
        certificate.not_valid_after_utc,
    )  # fmt: skip
    assert Enrolled(folder).by_certificate("0" * 64) is None
    assert stat.S_IMODE((folder / "sites" / "ous-rikshospitalet.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../x", "a/b", "", "Oslo", "oslo\n", ".", "-x", "a" * 64])
def test_a_name_that_is_no_name_is_refused(name: str, folder: Path) -> None:
    enrolment = Enrolment(folder, CARD)
    with pytest.raises(StudyError, match="not a name for a site"):
        enrolment.add(Keys().applicant(), name, AUTHORITY)
    for change in (enrolment.revoke, lambda n: enrolment.renew(n, AUTHORITY)):
        with pytest.raises(StudyError, match="not a name for a site"):
            change(name)
    assert [p.name for p in folder.rglob("*.json")] == []


def test_a_running_server_sees_every_change_with_its_next_question(folder: Path) -> None:
    enrolment, running = Enrolment(folder, CARD), Enrolled(folder)
    assert running.sites() == []
    oslo = sha256_of(enrolment.add(Keys().applicant(), "oslo", AUTHORITY))
    bergen = sha256_of(enrolment.add(Keys().applicant(), "bergen", AUTHORITY))
    assert [s.name for s in running.sites()] == ["bergen", "oslo"]
    enrolment.revoke("oslo")
    revoked, kept = running.by_certificate(oslo), running.by_certificate(bergen)
    assert revoked is not None
    assert kept is not None
    assert (revoked.revoked, kept.revoked) == (True, False)
    (folder / "sites" / "bergen.json").unlink()
    assert running.by_certificate(bergen) is None


def test_many_changes_in_a_row_are_all_seen(folder: Path) -> None:
    # Faster than the clock of any file system.
    enrolment, running = Enrolment(folder, CARD), Enrolled(folder)
    keys = Keys()
    enrolment.add(keys.applicant(), "oslo", AUTHORITY)
    for _ in range(20):
        new = sha256_of(enrolment.renew("oslo", AUTHORITY))
        assert running.by_certificate(new) is not None


def test_revoking_shuts_out_all_certificates_and_keys(folder: Path) -> None:
    enrolment, keys = Enrolment(folder, CARD), Keys()
    first = sha256_of(enrolment.add(keys.applicant(), "oslo", AUTHORITY))
    second = sha256_of(enrolment.renew("oslo", AUTHORITY))
    enrolment.revoke("oslo")
    enrolled = Enrolled(folder)
    assert [s.revoked for sha in (first, second) if (s := enrolled.by_certificate(sha))] == [True, True]
    assert enrolled.reply_key("oslo", key_id(keys.reply.public_key())) is None
    with pytest.raises(IdentityError, match="revoked"):
        enrolment.renew("oslo", AUTHORITY)
    with pytest.raises(IdentityError, match="enrolled before"):
        enrolment.add(keys.applicant(), "oslo", AUTHORITY)
    with pytest.raises(IdentityError, match="enrolled before"):
        enrolment.add(keys.applicant(), "oslo-2", AUTHORITY)
    back = sha256_of(enrolment.add(Keys().applicant(), "oslo", AUTHORITY))
    assert [s.revoked for sha in (first, second, back) if (s := enrolled.by_certificate(sha))] == [True, True, False]


def test_names_and_keys_are_enrolled_once(folder: Path) -> None:
    enrolment, keys = Enrolment(folder, CARD), Keys()
    enrolment.add(keys.applicant(), "oslo", AUTHORITY)
    with pytest.raises(IdentityError, match="enrolled already"):
        enrolment.add(Keys().applicant(), "oslo", AUTHORITY)
    for which in ("node", "tls", "reply"):
        other = Keys()
        setattr(other, which, getattr(keys, which))
        with pytest.raises(IdentityError, match="enrolled before, for oslo"):
            enrolment.add(other.applicant(), "bergen", AUTHORITY)
    assert [s.name for s in Enrolled(folder).sites()] == ["oslo"]


def test_renewal_leaves_the_old_certificate_in_force(folder: Path) -> None:
    enrolment, keys = Enrolment(folder, CARD), Keys()
    old = enrolment.add(keys.applicant(), "oslo", AUTHORITY)
    new = enrolment.renew("oslo", AUTHORITY)
    enrolled = Enrolled(folder)
    sites = [enrolled.by_certificate(sha256_of(join)) for join in (old, new)]
    assert [(s.revoked, s.node_key, s.reply_key) for s in sites if s] == [(False, new.node_key, new.reply_key)] * 2
    assert [s.certificate_sha256 for s in enrolled.sites()] == [sha256_of(new)]


def test_a_change_of_keys_leaves_time_to_change_over(folder: Path) -> None:
    enrolment, keys = Enrolment(folder, CARD), Keys()
    old = enrolment.add(keys.applicant(), "oslo", AUTHORITY)
    changed = Keys(keys.node)
    new = enrolment.renew("oslo", AUTHORITY, changed.applicant())
    enrolled = Enrolled(folder)
    before, after = (enrolled.by_certificate(sha256_of(join)) for join in (old, new))
    assert before is not None
    assert after is not None
    assert abs(before.expires - datetime.now(UTC) - KEY_CHANGE) < timedelta(minutes=1)
    assert (after.reply_key, after.node_key) == (key_text(changed.reply.public_key()), before.node_key)
    for reply in (keys.reply, changed.reply):
        found = enrolled.reply_key("oslo", key_id(reply.public_key()))
        assert found == reply.public_key()
    assert enrolled.reply_key("oslo", "0" * 64) is None
    assert enrolled.reply_key("bergen", key_id(keys.reply.public_key())) is None


def test_renewal_with_a_request_of_somebody_else_is_refused(folder: Path) -> None:
    enrolment = Enrolment(folder, CARD)
    enrolment.add(Keys().applicant(), "oslo", AUTHORITY)
    with pytest.raises(IdentityError, match="another node key"):
        enrolment.renew("oslo", AUTHORITY, Keys().applicant())
    with pytest.raises(IdentityError, match="not enrolled; enrolled: oslo"):
        enrolment.renew("bergen", AUTHORITY)


def test_a_damaged_or_exchanged_file_enrols_nobody_and_stops_nobody_else(folder: Path) -> None:
    enrolment = Enrolment(folder, CARD)
    oslo, bergen = (enrolment.add(Keys().applicant(), name, AUTHORITY) for name in ("oslo", "bergen"))
    path = folder / "sites" / "oslo.json"
    whole = path.read_bytes()
    running = Enrolled(folder)
    for damaged in (b"", whole[: len(whole) // 2], whole.replace(b'"name":"oslo"', b'"name":"bergen"'),
                    whole.replace(sha256_of(oslo).encode(), sha256_of(bergen).encode())):  # fmt: skip
        path.unlink()
        path.write_bytes(damaged)
        assert running.by_certificate(sha256_of(oslo)) is None
        found = running.by_certificate(sha256_of(bergen))
        assert found is not None
        assert found.name == "bergen"
        assert "oslo.json" in running.damaged[0]
    path.unlink()
    path.write_bytes(whole)
    assert running.by_certificate(sha256_of(oslo)) is not None
    assert running.damaged == []


def test_a_folder_that_is_gone_lets_nobody_in(folder: Path) -> None:
    join = Enrolment(folder, CARD).add(Keys().applicant(), "oslo", AUTHORITY)
    running = Enrolled(folder)
    (folder / "sites").rename(folder / "elsewhere")
    with pytest.raises(IdentityError, match="cannot be read"):
        running.by_certificate(sha256_of(join))


def test_operators_at_once_lose_nothing(folder: Path) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        Enrolment(folder, CARD).add(Keys().applicant(), name, AUTHORITY)
    running = Enrolled(folder)
    # Each opens the lock anew, as separate processes would (flock(2): a lock belongs to an open file).
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: Enrolment(folder, CARD).revoke(name), names))
    assert [s.revoked for s in running.sites()] == [True] * 4
