"""Signatures. Oracles: the test vectors of RFC 8032 (section 7.1), OpenSSL's command line, and hashlib."""

import base64
import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SignatureError
from common.signing import (
    Kind,
    Refusal,
    Signed,
    fingerprint,
    key_id,
    key_of,
    key_text,
    read_signed,
    same_fingerprint,
    sign,
    signed_bytes,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
SIGNED = sign(KEY, Kind.ORDER, "sites of a", b'{"a":1}')


def refused(signed: Signed, key: Ed25519PrivateKey = KEY, kind: Kind = Kind.ORDER, audience: str = "sites of a") -> str:
    with pytest.raises(SignatureError) as caught:
        verify(signed, key.public_key(), kind, audience)
    return caught.value.reason


def test_what_was_signed_comes_back() -> None:
    assert verify(SIGNED, KEY.public_key(), Kind.ORDER, "sites of a") == b'{"a":1}'
    assert verify(read_signed(SIGNED.canonical()), KEY.public_key(), Kind.ORDER, "sites of a") == b'{"a":1}'


def test_keys_are_those_of_rfc_8032() -> None:
    # Section 7.1, test 1: secret key, public key.
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    key = Ed25519PrivateKey.from_private_bytes(secret).public_key()
    assert base64.b64decode(key_text(key)) == public
    assert key_id(key) == sha256(public).hexdigest()
    assert key_of(key_text(key)) == key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_verifies_the_signature_over_the_documented_bytes(tmp_path: Path) -> None:
    parts = [b"fedscan", b"run-order", b"1", b"sites of a", b'{"a":1}']
    (tmp_path / "message").write_bytes(b"".join(len(p).to_bytes(8, "big") + p for p in parts))
    (tmp_path / "signature").write_bytes(base64.b64decode(SIGNED.signature))
    (tmp_path / "key.pem").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    command = "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in message -sigfile signature"
    result = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
    assert "Verified Successfully" in result.stdout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "study"}, Refusal.KIND),
        ({"version": 2}, Refusal.VERSION),
        ({"audience": "sites of b"}, Refusal.AUDIENCE),
        ({"key": key_id(OTHER.public_key())}, Refusal.KEY),
        ({"body": '{"a":2}'}, Refusal.SIGNATURE),
        ({"body": '{"a":1} '}, Refusal.SIGNATURE),
        ({"signature": base64.b64encode(bytes(64)).decode()}, Refusal.SIGNATURE),
        ({"signature": sign(OTHER, Kind.ORDER, "sites of a", b'{"a":1}').signature}, Refusal.SIGNATURE),
        # Signed by the right key, but as something else.
        ({"signature": sign(KEY, Kind.STUDY, "sites of a", b'{"a":1}').signature}, Refusal.SIGNATURE),
        ({"signature": sign(KEY, Kind.ORDER, "sites of b", b'{"a":1}').signature}, Refusal.SIGNATURE),
    ],
)
def test_an_altered_document_is_refused_with_its_reason(changes: dict[str, object], reason: str) -> None:
    assert refused(SIGNED.model_copy(update=changes)) == reason


def test_a_good_signature_for_another_purpose_is_refused() -> None:
    assert refused(SIGNED, kind=Kind.MANIFEST) == Refusal.KIND
    assert refused(SIGNED, audience="sites of b") == Refusal.AUDIENCE
    assert refused(SIGNED, key=OTHER) == Refusal.KEY


def test_no_bit_of_a_signature_may_change() -> None:
    for place in range(512):
        raw = bytearray(base64.b64decode(SIGNED.signature))
        raw[place // 8] ^= 1 << place % 8
        altered = SIGNED.model_copy(update={"signature": base64.b64encode(bytes(raw)).decode()})
        assert refused(altered) == Refusal.SIGNATURE


@settings(deadline=None)
@given(st.tuples(st.text(), st.text(), st.binary()), st.tuples(st.text(), st.text(), st.binary()))
def test_no_two_tuples_have_the_same_signed_bytes(a: tuple[str, str, bytes], b: tuple[str, str, bytes]) -> None:
    assert (signed_bytes(a[0], 1, a[1], a[2]) == signed_bytes(b[0], 1, b[1], b[2])) == (a == b)


VALID = json.loads(SIGNED.canonical())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{",
        b'{"kind":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"version": 1' + b"0" * 5000 + b"}",
        b'{"version": NaN}',
        json.dumps({**VALID, "more": 1}).encode(),
        json.dumps({k: v for k, v in VALID.items() if k != "audience"}).encode(),
        json.dumps({**VALID, "version": "1"}).encode(),
        json.dumps({**VALID, "version": True}).encode(),
        json.dumps({**VALID, "signature": "AAAA"}).encode(),
        json.dumps({**VALID, "body": {"a": 1}}).encode(),
        json.dumps({**VALID, "key": "../../etc/passwd"}).encode(),
        json.dumps(VALID)[:-1].encode() + b', "kind": "study"}',
        json.dumps({**VALID, "body": "x" * 2_000_000}).encode(),
    ],
)
def test_what_is_no_signed_document_is_refused(raw: bytes) -> None:
    with pytest.raises(SignatureError) as caught:
        read_signed(raw)
    assert caught.value.reason == Refusal.FORM
    assert len(str(caught.value)) < 1000


def test_fingerprints_are_the_first_bits_of_a_sha256_in_base32() -> None:
    hashed = sha256(b"\0" * 7 + b"\7fedscan" + b"\0" * 7 + b"\1x" + b"\0" * 7 + b"\3abc").digest()
    shown = fingerprint("x", b"abc")
    assert shown.replace("-", "") == base64.b32encode(hashed).decode()[:25]
    assert [len(group) for group in shown.split("-")] == [5] * 5


def test_fingerprints_are_compared_as_people_type_them() -> None:
    shown = fingerprint("x", b"abc")
    assert same_fingerprint(shown, f" {shown.lower().replace('-', ' ')} ")
    assert not same_fingerprint(shown, fingerprint("x", b"abd"))
    assert not same_fingerprint(shown, shown[:-1])
    assert not same_fingerprint("", "")
