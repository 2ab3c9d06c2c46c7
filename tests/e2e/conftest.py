"""A coordinator's link on the loopback with real TLS, and sites that speak Flower's Fleet protocol to it."""

import common.quiet  # noqa: F401

import ipaddress
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from server.port.listener import Limits
from server.service.coordinator import LinkConfig, ServerLink

HOST = "127.0.0.1"
NOW = datetime.now(UTC)


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {secrets.token_hex(4)}")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = (
            self._builder(self.name, self.key.public_key(), NOW + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )
        folder.mkdir(parents=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(ser.Encoding.PEM))

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(self.name, name, key, x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=9))
            .not_valid_after(end)
        )

    def issue(self, name: str, end: datetime | None = None, server: bool = False) -> tuple[Path, Path, str]:
        """Certificate, key and the certificate's SHA-256."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            self._builder(subject, key.public_key(), end or NOW + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pem, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(ser.Encoding.PEM))
        secret.write_bytes(key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()))
        return pem, secret, certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class Record:
    """What the coordinator's enrolment says of a site."""

    name: str
    node_key: str
    expires: datetime
    revoked: bool = False


@dataclass(frozen=True)
class Keys:
    """What a site holds."""

    name: str
    certificate: Path
    secret: Path
    sha256: str
    node: ec.EllipticCurvePrivateKey


class Enrolment:
    """Sites by their certificates, in memory."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def by_certificate(self, sha256: str) -> Record | None:
        return self.records.get(sha256)

    def sites(self) -> list[Record]:
        return list(self.records.values())


class FakeSite:
    """One site process: a minimal end of the Fleet protocol."""

    def __init__(self, world: "World", keys: Keys, instance: str | None = None) -> None:
        self.keys = keys
        self.instance = instance or secrets.token_hex(16)
        self.public_key = public_key_to_bytes(keys.node.public_key())
        base = f"https://{HOST}:{world.link.port}"
        auth = NodeAuthHttpInterceptor(keys.node, keys.node.public_key())
        self.fleet = FleetHttpClient(base, interceptors=[auth], verify=world.tls(keys))
        self.fleet._client.headers["fedscan-instance"] = self.instance
        self.node = Node()

    def activate(self) -> "FakeSite":
        reply = self.fleet.ActivateNode(ActivateNodeRequest(public_key=self.public_key, heartbeat_interval=10))
        self.node = Node(node_id=reply.node_id)
        return self

    def deactivate(self) -> None:
        self.fleet.DeactivateNode(DeactivateNodeRequest(node_id=self.node.node_id))

    def close(self) -> None:
        self.fleet._client.close()

    def poll(self) -> PullMessagesResponse:
        return self.fleet.PullMessages(PullMessagesRequest(node=self.node))

    def pull(self, confirm: bool = True) -> Message | None:
        """The open task, whole."""
        pulled = self.poll()
        if not pulled.messages_list:
            return None
        tree = pulled.message_object_trees[0]
        ids = list(dict.fromkeys(t.object_id for t in iterate_object_tree(tree)))
        contents = {i: self.pull_object(i) for i in ids}
        message = inflate_object_from_contents(tree.object_id, contents)
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = tree.object_id
        if confirm:
            self.fleet.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self.node, message_object_id=tree.object_id)
            )
        return message

    def pull_object(self, object_id: str) -> bytes:
        run = 0
        found = self.fleet.PullObject(PullObjectRequest(node=self.node, run_id=self.run or run, object_id=object_id))
        assert found.object_available
        return found.object_content

    run = 0

    def announce(self, reply: Message) -> PushMessagesResponse:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        head = message_to_proto(remove_content_from_message(reply))
        return self.announce_raw(head, get_object_tree(reply))

    def announce_raw(self, head: Any, tree: Any) -> PushMessagesResponse:
        return self.fleet.PushMessages(
            PushMessagesRequest(node=self.node, messages_list=[head], message_object_trees=[tree])
        )

    def push_object(self, session: str, object_id: str, content: bytes) -> None:
        stored = self.fleet.PushObject(
            PushObjectRequest(
                node=self.node, run_id=self.run, object_id=object_id, object_content=content, session_id=session
            )
        )
        assert stored.stored

    def push(self, reply: Message) -> None:
        announced = self.announce(reply)
        objects = get_all_nested_objects(reply)
        for object_id in announced.objects_to_push:
            self.push_object(announced.session_id, object_id, objects[object_id].deflate())

    def serve(self, app: Callable[[Message, Context], Message], stop: threading.Event) -> None:
        """Answer tasks until told to stop."""
        context = Context(run_id=1, node_id=self.node.node_id, node_config={}, state=RecordDict(), run_config={})
        while not stop.is_set():
            message = self.pull()
            if message is None:
                stop.wait(0.05)
            else:
                self.push(app(message, context))


class World:
    """A coordinator and its enrolled sites."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ca")
        self.enrolment = Enrolment()
        self.link: ServerLink
        self._sites: list[FakeSite] = []

    def start(self, **limits: float) -> ServerLink:
        certificate, key, _ = self.authority.issue("server", server=True)
        config = LinkConfig(
            certificate, key, self.authority.path, self.folder / "inbox", host=HOST,
            limits=replace(Limits(), **limits),  # type: ignore[arg-type]
        )  # fmt: skip
        self.link = ServerLink(config, self.enrolment)
        return self.link

    def enrol(self, name: str, end: datetime | None = None) -> Keys:
        pem, secret, sha256 = self.authority.issue(name, end)
        keys = Keys(name, pem, secret, sha256, ec.generate_private_key(ec.SECP384R1()))
        ssh = keys.node.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH).decode()
        self.enrolment.records[sha256] = Record(name, ssh, end or NOW + timedelta(days=9))
        return keys

    def revoke(self, keys: Keys) -> None:
        self.enrolment.records[keys.sha256] = replace(self.enrolment.records[keys.sha256], revoked=True)

    def tls(self, keys: Keys | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.path)
        if keys is not None:
            context.load_cert_chain(keys.certificate, keys.secret)
        return context

    def client(self, keys: Keys | None, context: ssl.SSLContext | None = None) -> httpx.Client:
        base = f"https://{HOST}:{self.link.port}"
        return httpx.Client(base_url=base, verify=context or self.tls(keys), timeout=20, follow_redirects=False)

    def site(self, keys: Keys, instance: str | None = None) -> FakeSite:
        self._sites.append(FakeSite(self, keys, instance))
        self._sites[-1].run = self.link.fleet._run
        return self._sites[-1]

    def close(self) -> None:
        for site in self._sites:
            site.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def fleet_end() -> type[FakeSite]:
    """The minimal end of the Fleet protocol, for sites of a coordinator in another process."""
    return FakeSite
