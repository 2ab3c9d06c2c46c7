"""A real coordinator with enrolled sites, one of which does what it should not."""

import hashlib
import json
import logging
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree

from client.desk.joining import install, read_answer
from client.identity import Identity, make_keys
from common import wire
from common.enrolment import read_request
from common.manifests import (
    ReplyHeader,
    RoundManifest,
    arrays_sha256,
    metrics_sha256,
    read_assignment,
    sign_reply,
    sign_study,
)
from common.study import Study
from server.checkpoint import Checkpoints
from server.enrolment.enrolled import Enrolment
from server.enrolment.identity import Coordinator, create
from server.enrolment.site_file import Enrolled
from server.events import read_events
from server.port.listener import Limits
from server.service.coordinator import LinkConfig, ServerLink
from server.service.deployed import run_study

HOST = "127.0.0.1"
# What must never stand in a log, an event or a file of the coordinator, though a site may send it.
PATIENT = "DOE^JOHN"


@dataclass(frozen=True)
class Keys:
    """What a site holds; for the fixture `fleet_end`."""

    name: str
    certificate: Path
    secret: Path
    node: Any
    reply: Ed25519PrivateKey
    coordinator: str


class Federation:
    """A coordinator's home, its server, and the homes of sites that have joined."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self.coordinator: Coordinator = create(folder / "server", [HOST], self.port, b"")
        self.offline = self.coordinator.unlock(b"")
        self.enrolment = Enrolment(self.coordinator.enrolment_folder, self.coordinator.card)
        self.link: ServerLink
        for name in names:
            self.join(name)

    def join(self, name: str) -> None:
        home = self.folder / name
        home.mkdir()
        applicant = read_request(make_keys(home, name))
        answer = self.enrolment.add(applicant, name, self.offline.authority)
        install(home, read_answer(home, answer.canonical()))

    def keys(self, name: str) -> Keys:
        identity = Identity(self.folder / name)
        link, trainer = identity.link_credentials(), identity.trainer_credentials()
        return Keys(name, link.certificate, link.tls_key, link.node_key, trainer.reply_key, trainer.coordinator)

    def tls(self, keys: Keys | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.coordinator.authority_path)
        if keys is not None:
            context.load_cert_chain(keys.certificate, keys.secret)
        return context

    @contextmanager
    def serving(self, wrap: Callable[[Any], Any] | None = None, **limits: float) -> Iterator[ServerLink]:
        """The server; `wrap` puts an app of the test's own around its gate."""
        c = self.coordinator
        config = LinkConfig(
            c.tls_certificate_path, c.tls_key_path, c.authority_path, self.folder / "inbox", host=HOST, port=self.port,
            limits=replace(Limits(), **limits),  # type: ignore[arg-type]
        )  # fmt: skip
        self.link = ServerLink(config, Enrolled(c.enrolment_folder))
        if wrap is not None:
            self.link._server.config.app = wrap(self.link._server.config.app)
        with self.link:
            yield self.link

    def run(self, study: Study, name: str = "run-1", seconds: float = 240) -> Path:
        """The study from its first question to its end; returns the run's folder."""
        now, card = datetime.now(UTC), self.coordinator.card
        signed = sign_study(
            self.offline.signing, self.coordinator.id, study, name, card.round_key, now, now + timedelta(days=1)
        )
        stop, folder = threading.Event(), self.folder / name
        timer = threading.Timer(seconds, stop.set)
        timer.start()
        try:
            enrolled = Enrolled(self.coordinator.enrolment_folder)
            run_study(self.link, self.coordinator, enrolled, folder, signed, None, stop)
        finally:
            timer.cancel()
        return folder


def study(rounds: int) -> Study:
    """A net of a few weights; half of the sites are enough."""
    return Study.model_validate(
        {"name": "siege", "data": {"labels": ["a"], "dimensions": 2}, "plan": {"patch": [16, 16]},
         "net": {"name": "unet", "width": 2, "levels": 2}, "training": {"steps": 2},
         "rounds": {"number": rounds, "quorum": 0.5}}
    )  # fmt: skip


JOINED = {"train": 4, "validation": 0, "test": 0, "patients": 4, "steps": 2}
METRICS = {"num-examples": 4, "steps": 2, "loss": 0.5, "seconds": 0.1}


@dataclass(frozen=True)
class Asked:
    """A task at a site that can sign."""

    message: Message
    keys: Keys

    @property
    def manifest(self) -> RoundManifest:
        raw = self.message.content[wire.ASSIGNMENT]["assignment"]
        return RoundManifest.model_validate_json(read_assignment(raw).manifest.body)

    @property
    def weights(self) -> np.ndarray:
        return np.frombuffer(self.message.content[wire.ARRAYS]["float32"].data, "<f4")

    def header(self, flat: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None, **changes: Any) -> ReplyHeader:
        asked = self.manifest
        right: dict[str, Any] = {
            "run": asked.run, "study": asked.study, "site": self.keys.name, "task": asked.task,
            "manifest": asked.sha256(), "base": asked.base, "payload": arrays_sha256(flat) if flat else None,
            "metrics": None if metrics is None else metrics_sha256(metrics), "salt": secrets.token_hex(32),
            "software": "0.1",
        }  # fmt: skip
        return ReplyHeader(**{**right, **changes})

    def signed(self, header: ReplyHeader, key: Ed25519PrivateKey | None = None, coordinator: str = "") -> bytes:
        return sign_reply(key or self.keys.reply, coordinator or self.keys.coordinator, header).canonical()

    def reply(
        self, flat: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None = None, raw: bytes | None = None
    ) -> Message:
        """A reply with the site's true signature on its numbers and weights, unless `raw` is another header."""
        metrics = METRICS if metrics is None else metrics
        if raw is None:
            raw = self.signed(self.header(flat, _plain(metrics)))
        content = RecordDict({wire.HEADER: ConfigRecord({"header": raw}), wire.METRICS: MetricRecord(dict(metrics))})
        if flat:
            content[wire.ARRAYS] = wire.record(flat)
        return Message(content, reply_to=self.message)

    def honest(self) -> Message:
        """The update of a site that adds one to every weight."""
        if self.manifest.kind == "join":
            return self.reply(None, JOINED)
        return self.reply({"float32": self.weights + 1})


def _plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What can be hashed of metrics, some of which are no numbers."""
    return {k: v for k, v in metrics.items() if isinstance(v, int | float) and v == v and abs(v) != float("inf")}


class Objects:
    """Objects in Flower's form, made by hand."""

    def __init__(self) -> None:
        self.made: dict[str, bytes] = {}

    @property
    def largest(self) -> bytes:
        return max(self.made.values(), key=len)

    def add(self, kind: str, children: list[str], body: bytes) -> str:
        return self.raw(f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body)

    def raw(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self.made[name] = content
        return name

    def holder(self, kind: str, parts: Mapping[str, str]) -> str:
        return self.add(kind, list(dict.fromkeys(parts.values())), json.dumps(dict(parts)).encode())

    def tensor(self, data: bytes, **changes: Any) -> str:
        chunk = self.add("ArrayChunk", [], data)
        about = {"dtype": "float32", "shape": [len(data) // 4], "stype": wire.STYPE, "arraychunk_ids": [0]}
        return self.add("Array", [chunk], json.dumps({**about, **changes}).encode())

    def message(self, like: Message, children: list[str]) -> str:
        return self.add("Message", children, like.deflate().partition(b"\0")[2])


def push_objects(site: Any, like: Message, root: str, objects: Objects) -> None:
    """Announce and send objects as the reply `root`; `like` gives its head."""
    tree = ObjectTree(object_id=root)
    for name in objects.made:
        if name != root:
            tree.children.add(object_id=name)
    announced = site.announce_raw(message_to_proto(remove_content_from_message(like)), tree)
    for name in announced.objects_to_push:
        site.push_object(announced.session_id, name, objects.made[name])


Behaviour = Callable[[Any, Asked], None]


def serve(site: Any, keys: Keys, behave: Behaviour, stop: threading.Event) -> None:
    """Answer every task by `behave(site, asked)`; one whose answer is turned away gives an error's code instead."""
    while not stop.is_set():
        message = site.pull()
        if message is None:
            stop.wait(0.1)
            continue
        try:
            behave(site, Asked(message, keys))
        except httpx.HTTPStatusError:
            site.push(wire.error_reply(message, "E_DATA"))


def honest(site: Any, asked: Asked) -> None:
    site.push(asked.honest())


class Notes(logging.Handler):
    """Everything that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def refusals(self) -> list[dict[str, Any]]:
        return [json.loads(r.getMessage()) for r in self.records if r.name == "fedscan.gate"]

    @property
    def text(self) -> str:
        return self.text_since(0)

    def text_since(self, number: int) -> str:
        return "\n".join(r.getMessage() for r in self.records[number:])


@contextmanager
def noting() -> Iterator[Notes]:
    """All log records of the process that a deployed process would write (`common.log.start_log`)."""
    notes, root, own = Notes(), logging.getLogger(), logging.getLogger("fedscan")
    levels = root.level, own.level
    root.addHandler(notes)
    root.setLevel(logging.WARNING)
    own.setLevel(logging.INFO)
    try:
        yield notes
    finally:
        root.removeHandler(notes)
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == kind]


def weights_after(folder: Path, of: Study, number: int) -> dict[str, np.ndarray]:
    return Checkpoints(folder / "checkpoints", of.digest(), wire.Schema.of(of)).weights(number)
