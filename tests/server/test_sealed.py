"""Replies between real sites: what a trainer did not sign for this very task is not taken. All keys are real."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from common import wire
from common.errors import APPROVAL_CODES, WireError
from common.manifests import ReplyHeader, arrays_sha256, metrics_sha256, read_assignment, sign_reply, sign_study
from common.signing import Kind, key_id, key_text, sign, sites_of
from common.study import Study
from common.uplink import Uplink
from common.wire import Schema, Terms
from server.channel import Ask
from server.consent import NotAllowedError
from server.manifests import Manifests
from server.sealed import Sealed

SIGNER, ROUND, OSLO, ROME = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in range(1, 5))
COORDINATOR = key_id(SIGNER.public_key())
STUDY = Study.model_validate(
    {"name": "s", "data": {"labels": ["a"], "dimensions": 2}, "plan": {"patch": [16, 16]}, "training": {"steps": 2},
     "net": {"name": "unet", "width": 2, "levels": 2}}
)  # fmt: skip
SCHEMA = Schema.of(STUDY)
FLAT = {"float32": np.linspace(0, 1, SCHEMA.sizes["float32"], dtype="float32")}
METRICS = {"num-examples": 4, "steps": 2, "loss": 0.5, "seconds": 1.0}
KEYS = {"oslo": OSLO, "rome": ROME}


class Enrolled:
    """Two sites and their reply keys; either may be revoked."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def sites(self) -> list[Any]:
        return [SimpleNamespace(name=n, revoked=n in self.revoked) for n in KEYS]

    def reply_key(self, site: str, key: str) -> Any:
        public = KEYS[site].public_key()
        return public if key_id(public) == key and site not in self.revoked else None


class Office:
    """A run's coordinator, and its sites' pens."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        order = sign_study(SIGNER, COORDINATOR, STUDY, "run-1", key_text(ROUND.public_key()), now, now + timedelta(1))
        self.manifests = Manifests(folder, order, COORDINATOR, key_text(SIGNER.public_key()), ROUND)
        self.enrolled = Enrolled()
        self.channel = Sealed(self.manifests, self.enrolled, COORDINATOR)  # type: ignore[arg-type]
        self.ask = Ask("run-1", 1, "train", {"oslo": 1, "rome": 2}, ("oslo", "rome"), FLAT)
        wire.become(1, 1)
        self.sent = self.channel.messages(self.ask)

    def header(self, site: str = "oslo", **changes: Any) -> ReplyHeader:
        manifest = self.manifests.last
        assert manifest is not None
        right: dict[str, Any] = {
            "run": manifest.run, "study": manifest.study, "site": site, "task": manifest.task,
            "manifest": sha256(b"body").hexdigest(), "base": manifest.base, "payload": arrays_sha256(FLAT),
            "metrics": metrics_sha256(METRICS), "salt": "0" * 64, "software": "0.1",
        }  # fmt: skip
        return ReplyHeader(**{**right, **changes})

    def reply(
        self, header: ReplyHeader, key: Ed25519PrivateKey = OSLO, flat: Any = FLAT, metrics: Any = METRICS
    ) -> Any:
        signed = sign_reply(key, COORDINATOR, header)
        return self.raw(signed.canonical(), flat, metrics)

    def raw(self, header: Any, flat: Any = FLAT, metrics: Any = METRICS) -> Message:
        content = RecordDict({wire.HEADER: ConfigRecord({"header": header}), wire.METRICS: MetricRecord(dict(metrics)),
                              wire.ARRAYS: wire.record(flat)})  # fmt: skip
        return Message(content, reply_to=self.sent["oslo"])

    def read(self, message: Message, site: str = "oslo") -> Any:
        received = self.channel.received(site, message)
        limits = dict.fromkeys(METRICS, 1e9)
        return received.metrics(frozenset(METRICS), limits), received.arrays(Uplink(SCHEMA)), received.digest


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_signed_reply_is_taken(office: Office) -> None:
    header = office.header()
    metrics, flat, digest = office.read(office.reply(header))
    assert metrics == METRICS
    np.testing.assert_array_equal(flat["float32"], FLAT["float32"])
    assert digest == sha256(header.canonical()).hexdigest()


def _with_more(office: Office) -> Message:
    message = office.reply(office.header())
    message.content["more"] = ConfigRecord({"more": 1})
    return message


OTHER = {"float32": FLAT["float32"] + 1}
REFUSED: dict[str, Callable[[Office], Message]] = {
    "without a header": lambda o: Message(RecordDict({wire.ARRAYS: wire.record(FLAT)}), reply_to=o.sent["oslo"]),
    "header is a number": lambda o: o.raw(7),
    "header is rubbish": lambda o: o.raw(b"{}"),
    "unsigned": lambda o: o.raw(o.header().canonical()),
    "signed by another site": lambda o: o.reply(o.header(), ROME),
    "of another site": lambda o: o.reply(o.header("rome")),
    "signed by the coordinator's key": lambda o: o.reply(o.header(), ROUND),
    "signed as a manifest": lambda o: o.raw(
        sign(OSLO, Kind.MANIFEST, sites_of(COORDINATOR), o.header().canonical()).canonical()
    ),
    "for another coordinator": lambda o: o.raw(sign_reply(OSLO, "f" * 64, o.header()).canonical()),
    "of another run": lambda o: o.reply(o.header(run="run-2")),
    "of another study": lambda o: o.reply(o.header(study="f" * 64)),
    "of an earlier round": lambda o: o.reply(o.header(task="run-1/0/train/train")),
    "from other weights": lambda o: o.reply(o.header(base="f" * 64)),
    "other numbers": lambda o: o.reply(o.header(), metrics={**METRICS, "num-examples": 5}),
    "other weights": lambda o: o.reply(o.header(), flat=OTHER),
    "with more than was signed": lambda o: _with_more(o),
    "an error": lambda o: o.reply(o.header(payload=None, metrics=None, error="E_DATA")),
    "a refusal": lambda o: wire.error_reply(o.sent["oslo"], "E_SIGNATURE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_not_signed_for_this_task_is_refused(office: Office, case: str) -> None:
    with pytest.raises(WireError):
        office.read(REFUSED[case](office))


def test_errors_are_known_by_their_code(office: Office) -> None:
    with pytest.raises(WireError, match=r"^E_DATA$"):
        office.read(REFUSED["an error"](office))
    with pytest.raises(WireError, match=r"^E_SIGNATURE$"):
        office.read(REFUSED["a refusal"](office))


@pytest.mark.parametrize("code", APPROVAL_CODES)
def test_only_a_sites_signed_word_says_that_its_people_do_not_let_it(office: Office, code: str) -> None:
    with pytest.raises(NotAllowedError) as said:
        office.read(office.reply(office.header(payload=None, metrics=None, error=code)))
    assert said.value.reason == code
    # The same from a link alone is a failure like any other: it can keep a site from answering, not sign it off.
    with pytest.raises(WireError, match=f"^{code}$") as unsigned:
        office.read(wire.error_reply(office.sent["oslo"], code))
    assert not isinstance(unsigned.value, NotAllowedError)


def test_a_revoked_site_is_gone_and_its_word_counts_no_more(office: Office) -> None:
    reply = office.reply(office.header())
    office.read(reply)
    assert office.channel.gone(["oslo", "rome"]) == set()
    office.enrolled.revoked.add("oslo")
    assert office.channel.gone(["oslo", "rome"]) == {"oslo"}
    with pytest.raises(WireError, match="does not count"):
        office.read(reply)


def test_all_sites_get_the_same_manifest_and_it_names_their_last_counted_replies(office: Office) -> None:
    later = replace(office.ask, round=2, acknowledged={"oslo": 1}, replies={"oslo": "a" * 64}, to={"rome": 2})
    (message,) = office.channel.messages(later).values()
    text = message.content[wire.ASSIGNMENT]["assignment"]
    assert isinstance(text, bytes)
    assert (
        read_assignment(text).manifest
        == office.manifests.issue(
            2,
            "train",
            "train",
            arrays_sha256(FLAT),
            office.manifests.last.roster,
            Terms().model_dump(),
        ).manifest
    )
    assert office.manifests.last is not None
    counted = office.manifests.last.roster
    assert (counted["oslo"].round, counted["oslo"].reply, counted["rome"].round) == (1, "a" * 64, 0)
    assert wire.TASK not in message.content
