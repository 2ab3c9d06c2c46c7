"""The commands by which a coordinator and its hospitals meet, as they are typed, from nothing to a signed study."""

import base64
import io
import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from client.identity import Identity
from client.site import SiteConfig
from common.chain import Checker, KnownRuns
from common.cli import run
from common.documents import Document
from common.manifests import Counted, read_signed_study
from common.signing import key_text
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled
from server.manifests import Manifests

PASSPHRASE = "correct horse battery"
STUDY = """\
name: small
data: {labels: [a]}
plan: {spacing: [1, 1, 1], patch: [32, 32, 32]}
net: {name: dynunet, size: small}
training: {steps: 2}
rounds: {number: 2}
"""
Type = Callable[..., str]


@pytest.fixture
def type_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Runs `fedscan ...` in an empty folder; answers its questions; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    file.chmod(0o600)
    monkeypatch.setenv("FEDSCAN_PASSPHRASE_FILE", str(file))

    def typed(command: str, code: int = 0, answers: str = "") -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(answers))
        found = run(command.split())
        printed = capsys.readouterr()
        assert found == code, printed
        return printed.out + printed.err

    return typed


def fingerprint_in(text: str) -> str:
    found = re.search(r"\b(?:[A-Z2-7]{5}-){4}[A-Z2-7]{5}\b", text)
    assert found is not None, text
    return found.group()


def enrolled(type_in: Type) -> None:
    type_in("server init --host fed.example.org")
    shown = fingerprint_in(type_in("site init --name oslo --home oslo"))
    type_in(f"server site add oslo/oslo-request.json --name oslo --yes {shown}")
    type_in(f"site join oslo.join --home oslo --yes {fingerprint_in(type_in('server fingerprint'))}")


def test_people_compare_fingerprints_and_answer_questions(type_in: Type, tmp_path: Path) -> None:
    ours = fingerprint_in(type_in("server init --host fed.example.org --ip 10.0.0.7 --port 443"))
    at_the_site = fingerprint_in(type_in("site init --name oslo --home oslo"))
    asked = type_in("server site add oslo/oslo-request.json", answers="y\nous\n")
    assert at_the_site in asked
    assert ours in asked
    asked = type_in("site join ous.join --home oslo", answers="y\n")
    assert ours in asked
    assert "joined fed.example.org:443 as ous" in asked
    assert [s.name for s in Enrolled(tmp_path / "fedscan-server" / "enrolment").sites()] == ["ous"]


def test_who_says_no_changes_nothing(type_in: Type, tmp_path: Path) -> None:
    type_in("server init --host fed.example.org")
    type_in("site init --name oslo --home oslo")
    type_in("server site add oslo/oslo-request.json", code=130, answers="n\n")
    type_in("server site add oslo/oslo-request.json", code=130)
    assert not (tmp_path / "oslo.join").exists()
    type_in("server site add oslo/oslo-request.json", answers="y\n\n")
    type_in("site join oslo.join --home oslo", code=130, answers="n\n")
    assert not (tmp_path / "oslo" / "federation.json").exists()
    type_in("server site revoke oslo", code=130, answers="n\n")
    assert json.loads(type_in("server site list --json"))["sites"][0]["state"] == "enrolled"


def test_scripts_must_give_fingerprint_and_name(type_in: Type) -> None:
    type_in("server init --host fed.example.org")
    shown = fingerprint_in(type_in("site init --name oslo --home oslo"))
    wrong = "AAAAA-" * 4 + "AAAAA"
    assert "needs --name" in type_in(f"server site add oslo/oslo-request.json --yes {shown}", code=2)
    said = type_in(f"server site add oslo/oslo-request.json --name oslo --yes {wrong}", code=1)
    assert shown in said
    type_in(f"server site add oslo/oslo-request.json --name ../x --yes {shown}", code=2)
    type_in(f"server site add oslo/oslo-request.json --name oslo --yes {shown.lower()}")
    assert "not AAAAA" in type_in(f"site join oslo.join --home oslo --yes {wrong}", code=1)


def test_a_wrong_passphrase_issues_nothing(type_in: Type, tmp_path: Path) -> None:
    type_in("server init --host fed.example.org")
    shown = fingerprint_in(type_in("site init --name oslo --home oslo"))
    (tmp_path / "passphrase").write_text("another passphrase\n")
    said = type_in(f"server site add oslo/oslo-request.json --name oslo --yes {shown}", code=1)
    assert "passphrase is wrong" in said
    assert "no site is enrolled yet" in type_in("server site list")


def test_weak_passphrases_and_second_inits_are_refused(type_in: Type, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("\n")
    assert "--allow-weak-passphrase" in type_in("server init --host a.org", code=1)
    assert not (tmp_path / "fedscan-server").exists()
    type_in("server init --host a.org --allow-weak-passphrase")
    assert "never written over" in type_in("server init --host a.org --allow-weak-passphrase", code=1)
    type_in("site init --name oslo --home oslo")
    assert "oslo-request.json exists already" in type_in("site init --name oslo --home oslo", code=1)
    assert "never written over" in type_in("site init --name other --home oslo", code=1)
    assert "not a name for a site" in type_in("site init --name Oslo --home new", code=2)
    assert not (tmp_path / "new").exists()


def test_site_yaml_is_valid_accepts_nothing_and_is_left_alone(type_in: Type, tmp_path: Path) -> None:
    type_in("site init --name oslo --home oslo")
    path = tmp_path / "oslo" / "site.yaml"
    document = Document.read(path)
    config = document.validate(SiteConfig, document.data)
    assert (config.name, config.approval.rule) == ("oslo", "none")
    (tmp_path / "bergen").mkdir()
    (tmp_path / "bergen" / "site.yaml").write_text("name: bergen\ndata: mine\n")
    type_in("site init --name bergen --home bergen")
    assert (tmp_path / "bergen" / "site.yaml").read_text() == "name: bergen\ndata: mine\n"


def test_renewal_and_revocation(type_in: Type, tmp_path: Path) -> None:
    enrolled(type_in)
    before = Identity(tmp_path / "oslo").federation()
    assert "oslo.join exists already" in type_in("server site renew oslo", code=1)
    type_in("server site renew oslo --out again.join")
    # The coordinator is known, so nobody is asked.
    type_in("site join again.join --home oslo")
    renewed = Identity(tmp_path / "oslo").federation()
    assert renewed.certificate != before.certificate
    shown = fingerprint_in(type_in("site init --new-keys --home oslo"))
    type_in(f"server site renew oslo --request oslo/oslo-request-new-keys.json --yes {shown} --out keys.join")
    type_in("site join keys.join --home oslo")
    assert Identity(tmp_path / "oslo").federation().generation == 2
    type_in("server site revoke oslo --yes")
    assert "revoked" in type_in("server site list")
    assert "revoked" in type_in("server site renew oslo --out x.join", code=1)
    type_in("server renew --host new.example.org")


def test_backup_and_restore(type_in: Type, tmp_path: Path) -> None:
    enrolled(type_in)
    type_in("server backup copy.tar")
    type_in("server restore copy.tar --home back")
    assert type_in("server fingerprint --home back") == type_in("server fingerprint")
    assert type_in("server site list --home back") == type_in("server site list")
    type_in("server site renew oslo --home back --out again.join")
    type_in("site join again.join --home oslo")


def test_a_signed_study_is_run_by_the_site_that_joined(type_in: Type, tmp_path: Path) -> None:
    enrolled(type_in)
    (tmp_path / "study.yaml").write_text(STUDY)
    said = type_in("study sign study.yaml --run first --days 3")
    assert "exists already" in type_in("study sign study.yaml", code=1)
    coordinator, site = Coordinator(tmp_path / "fedscan-server"), Identity(tmp_path / "oslo").trainer_credentials()
    signed = read_signed_study((tmp_path / "study.signed.json").read_bytes())
    chain = Manifests(tmp_path / "chain", signed, coordinator.id, coordinator.card.signing_key, coordinator.round_key())
    assignment = chain.issue(0, "join", "train", None, {"oslo": Counted()})
    checker = Checker(site.site, site.signer)
    accepted = checker.check(KnownRuns(), assignment, datetime.now(UTC))
    assert (accepted.order.run, accepted.order.max_rounds) == ("first", 2)
    assert accepted.study.digest() in said
    assert (accepted.order.valid_until - accepted.order.issued).days == 3


@pytest.mark.parametrize("section", ["sites: {a: {data: x}}", "partition: {sites: 2}", "compare: [fedavg]"])
def test_a_study_for_simulations_is_not_signed(section: str, type_in: Type, tmp_path: Path) -> None:
    type_in("server init --host fed.example.org")
    (tmp_path / "study.yaml").write_text(STUDY + section + "\n")
    said = type_in("study sign study.yaml", code=2)
    assert f"study.yaml:7: {section.partition(':')[0]}: is for simulations only" in said
    assert not (tmp_path / "study.signed.json").exists()


def secrets_of(path: Path) -> list[bytes]:
    """A private key in every spelling in which it could hide in a file."""
    raw = path.read_bytes()
    if b"OPENSSH" in raw:
        key = load_ssh_private_key(raw, None)
    else:
        key = load_pem_private_key(raw, PASSPHRASE.encode() if b"ENCRYPTED" in raw else None)
    if isinstance(key, Ed25519PrivateKey):
        number = key.private_bytes_raw()
    else:
        assert isinstance(key, EllipticCurvePrivateKey)
        number = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
    # Base64 of a part of a longer text begins at any of three places; the inner part is the same.
    shifted = [base64.b64encode(b"\0" * n + number)[8:-8] for n in range(3)]
    encrypted = [line for line in raw.splitlines() if len(line) == 64] if b"ENCRYPTED" in raw else []
    return [number, number.hex().encode(), number.hex().upper().encode(), *shifted, *encrypted]


def holds(path: Path, secrets: list[bytes]) -> bool:
    """Whether one of the secrets is in the file, also over the line breaks of a PEM text, in JSON or not."""
    raw = path.read_bytes()
    return any(s in text for s in secrets for text in (raw, raw.replace(b"\n", b"").replace(b"\\n", b"")))


def test_no_private_key_is_in_a_file_that_travels(type_in: Type, tmp_path: Path) -> None:
    enrolled(type_in)
    type_in("site init --new-keys --home oslo")
    (tmp_path / "study.yaml").write_text(STUDY)
    type_in("study sign study.yaml")
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "passphrase"]
    private = [p for p in files if b"PRIVATE KEY" in p.read_bytes()]
    kept = ("offline/authority.pem", "offline/signing.pem", "online/round.pem", "online/tls.pem", "link/node_key",
            "link/tls-1.pem", "link/tls-2.pem", "trainer/reply-1.pem", "trainer/reply-2.pem")  # fmt: skip
    assert sorted(str(Path(*p.parts[-2:])) for p in private) == sorted(kept)
    assert {stat.S_IMODE(p.stat().st_mode) for p in private} == {0o600}
    secrets = [s for p in private for s in secrets_of(p)]
    assert min(len(s) for s in secrets) >= 28
    # The control: a secret is found where it is.
    assert [p for p in private if not holds(p, secrets)] == []
    assert [p for p in files if p not in private and holds(p, secrets)] == []
    assert key_text(Identity(tmp_path / "oslo").trainer_credentials().signer) in (tmp_path / "oslo.join").read_text()
