"""Flower's Fleet protocol from the site's end: who asks, what is asked, how large an answer may be.

Flower's own client follows redirects, inflates without a bound, takes answers of any size, and may end the process
when it dislikes a version. Its messages are all that is used here.
"""

import common.quiet  # noqa: F401

import base64
import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from client.identity import Identity
from client.network.connection import Connection, Traffic, UnheardError
from client.network.credentials import Credentials, load
from client.network.dial import Proxy, connect
from client.network.objects import CHUNK, MAX_SMALL
from client.network.problems import LinkError, Problem
from client.network.things import Offer, reply_metadata
from common.errors import FedscanError

HEARTBEAT = 10.0  # seconds, Flower's shortest: after two of them without one a node counts as away
MEDIA = "application/protobuf"
_SMALL = 1024 * 1024  # bytes of an answer that holds no object; the list of a large task's chunks is one
_SECONDS, _SECONDS_LARGE = 45.0, 240.0  # for an exchange
_IDLE = 20.0  # seconds after which a connection that nothing asks on is closed; the coordinator waits longer
_TRIES, _SOON = 3, 0.2  # how often a small question is asked that meets an error on the way; seconds between
_SIGNED = 5.0  # seconds for which one signature of the time is used; the coordinator takes it for five minutes
_ID = re.compile("[0-9a-f]{64}")
_FOUND = PullObjectResponse(object_found=True, object_available=True).SerializeToString()
_CONTENT, _OBJECT = b"\x1a", b"\x22"  # tags of the field object_content: 3 of the answer, 4 of the request


@dataclass(frozen=True)
class Session:
    """An upload that was announced.

    Attributes:
        name: Its name at the coordinator.
        missing: Objects that it does not have yet.
    """

    name: str
    missing: frozenset[str]


class Fleet:
    """The coordinator, as the link asks it; several threads may ask at the same time.

    One connection is kept. While a large object is on it, another one is opened for what cannot wait.

    Args:
        home: The site's folder; a certificate that `site join` installs is used from the next request on.
        proxy: On the way, if any.
    """

    def __init__(self, home: Path, proxy: Proxy | None = None) -> None:
        self._identity = Identity(home)
        self._proxy = proxy
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._over = False
        self._sending: Connection | None = None  # on which a reply's object leaves
        self._shut = False
        self._credentials: Credentials | None = None
        self._signed: tuple[object, float, dict[str, str]] = (None, 0.0, {})
        self.instance = secrets.token_hex(16)
        self.traffic = Traffic()
        self._versions = {
            "flwr-package-name": "flwr", "flwr-package-version": version("flwr"), "flwr-component-name": "SuperNode",
        }  # fmt: skip

    @property
    def where(self) -> str:
        """Host and port of the coordinator."""
        now = self._now()
        return f"{now.host}:{now.port}"

    # What is asked

    def activate(self) -> int:
        """Take part; returns the node's id, which changes when the coordinator starts again."""
        public = self._now().public
        asked = ActivateNodeRequest(public_key=public, heartbeat_interval=HEARTBEAT)
        node: int = self._ask("activate-node", asked, ActivateNodeResponse).node_id
        return node

    def deactivate(self, node: int) -> None:
        """Leave, so that another process may take part at once."""
        self._ask("deactivate-node", DeactivateNodeRequest(node_id=node), DeactivateNodeResponse, seconds=5)

    def heartbeat(self, node: int) -> bool:
        """Stay; False when the coordinator has forgotten the node."""
        asked = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=HEARTBEAT)
        return bool(self._ask("send-node-heartbeat", asked, SendNodeHeartbeatResponse, seconds=15).success)

    def offered(self, node: int) -> Offer | None:
        """The task that waits, if any."""
        asked = PullMessagesRequest(node=Node(node_id=node))
        found = self._ask("pull-messages", asked, PullMessagesResponse)
        if not found.messages_list or not found.message_object_trees:
            return None
        tree = found.message_object_trees[0]
        names = [tree.object_id, *(child.object_id for child in tree.children)]
        if len(names) != 2 or not all(_ID.fullmatch(name) for name in names):
            raise _unreadable()
        metadata = Metadata()
        metadata.CopyFrom(found.messages_list[0].metadata)
        return Offer(names[0], names[1], metadata)

    def pull(self, node: int, offer: Offer, object_id: str, small: bool) -> memoryview:
        """An object of a task; its bytes are valid until the next request of this thread.

        Args:
            node: This node.
            offer: The task.
            object_id: Which.
            small: Whether it is no chunk, and may have `MAX_SMALL` bytes.
        """
        asked = PullObjectRequest(node=Node(node_id=node), run_id=offer.metadata.run_id, object_id=object_id)
        cap = (MAX_SMALL if small else CHUNK) + 1024
        raw = self._raw("pull-object", [asked.SerializeToString()], cap, _SECONDS_LARGE)
        content = _content(raw)
        if content is not None:
            return content
        answer = _parsed(PullObjectResponse, raw)
        if not (answer.object_found and answer.object_available):
            raise LinkError(Problem("over", "the task is not open any more", "Nothing to do"), 410)
        return memoryview(answer.object_content)

    def confirm(self, node: int, offer: Offer) -> None:
        """Say that the task is here and whole."""
        asked = ConfirmMessageReceivedRequest(
            node=Node(node_id=node), run_id=offer.metadata.run_id, message_object_id=offer.message_id
        )
        self._ask("confirm-message-received", asked, ConfirmMessageReceivedResponse)

    def announce(self, node: int, offer: Offer, root: str, tree: Sequence[str]) -> Session:
        """Announce a reply.

        Args:
            node: This node.
            offer: The task.
            root: Name of the reply's outermost object.
            tree: Names of the others.
        """
        asked = PushMessagesRequest(
            node=Node(node_id=node),
            messages_list=[Message(metadata=reply_metadata(offer, node))],
            message_object_trees=[ObjectTree(object_id=root, children=[ObjectTree(object_id=i) for i in tree])],
            clientapp_runtime_list=[0.0],  # the real figure would tell how much data the site has
        )
        answer = _parsed(
            PushMessagesResponse, self._raw("push-messages", [asked.SerializeToString()], _SMALL, _SECONDS, reply=True)
        )
        return Session(answer.session_id, frozenset(answer.objects_to_push))

    def push(
        self, node: int, offer: Offer, session: Session, object_id: str, content: Sequence[bytes | memoryview]
    ) -> None:
        """Send one object of a reply, given in pieces."""
        asked = PushObjectRequest(
            node=Node(node_id=node), run_id=offer.metadata.run_id, object_id=object_id, session_id=session.name
        )
        length = sum(memoryview(piece).nbytes for piece in content)
        front = asked.SerializeToString() + _OBJECT + _varint(length)
        answer = self._raw("push-object", [front, *content], _SMALL, _SECONDS_LARGE, reply=True)
        if not _parsed(PushObjectResponse, answer).stored:
            raise LinkError(Problem("coordinator", "the coordinator did not store an object", "It will be sent again"))

    def shut(self, shut: bool) -> None:
        """Let no reply out from now on, not the rest of one that is leaving either; or let them out again."""
        with self._lock:
            self._shut = shut
            if shut and self._sending is not None:
                self._sending.cut()

    def close(self) -> None:
        """Close all connections; those on which another thread asks something, when that is done."""
        self._over = True
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    # How it is asked

    def _ask(self, verb: str, asked: Proto, answer: type[Proto], seconds: float = _SECONDS) -> Any:
        return _parsed(answer, self._raw(verb, [asked.SerializeToString()], _SMALL, seconds))

    def _raw(
        self, verb: str, body: Sequence[bytes | memoryview], cap: int, seconds: float, reply: bool = False
    ) -> memoryview:
        credentials = self._now()
        # Each question may be asked twice. Behind a gateway that fails now and then, a row of them would never end.
        left = _TRIES if sum(memoryview(piece).nbytes for piece in body) <= _SMALL else 1
        while True:
            connection = self._take(credentials)
            try:
                if reply:
                    self._begin_reply(connection)
                answer = connection.ask(f"/v1/fleet/{verb}", self._headers(credentials), body, cap, seconds)
            except UnheardError:
                continue
            except LinkError as error:
                left -= 1
                if error.status < 500 or error.wait or not left or self._over:
                    raise
                time.sleep(_SOON)
                continue
            finally:
                if reply:
                    with self._lock:
                        self._sending = None
            with self._lock:
                if connection.open and not self._over:
                    self._idle.append(connection)
                    return answer
            connection.close()
            return answer

    def _begin_reply(self, connection: Connection) -> None:
        with self._lock:
            if not self._shut:
                self._sending = connection
                return
        connection.close()
        raise LinkError(Problem("paused", "the site is paused", "It goes on with: fedscan site unpause"))

    def _headers(self, credentials: Credentials) -> dict[str, str]:
        key, until, headers = self._signed
        if key is not credentials.key or time.monotonic() > until:
            headers = self._sign(credentials)
            self._signed = (credentials.key, time.monotonic() + _SIGNED, headers)
        return headers

    def _sign(self, credentials: Credentials) -> dict[str, str]:
        now = datetime.now(UTC).isoformat()
        signature = credentials.key.sign(now.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "Content-Type": MEDIA, "Accept": MEDIA, "fedscan-instance": self.instance, **self._versions,
            "flwr-public-key": base64.b64encode(credentials.public).decode(), "flwr-timestamp": now,
            "flwr-signature": base64.b64encode(signature).decode(),
        }  # fmt: skip

    def _take(self, credentials: Credentials) -> Connection:
        """The connection that was used last, or a new one."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if time.monotonic() - connection.used < _IDLE:
                    return connection
                connection.close()
        raw = connect(credentials.host, credentials.port, credentials.context, self._proxy)
        return Connection(raw, credentials.host, credentials.port, self.traffic)

    def _now(self) -> Credentials:
        """Keys and certificates as they are on disk now; connections with older ones are closed."""
        path = self._identity.home / "federation.json"
        try:
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_ino)
        except OSError:
            stamp = (0, 0)
        known = self._credentials
        if known is not None and known.stamp == stamp:
            return known
        try:
            fresh = load(self._identity, stamp)
        except FedscanError as error:
            raise LinkError(Problem("identity", str(error), "Put right what is said here")) from None
        with self._lock:
            self._credentials = fresh
        self._drop()
        return fresh


def _parsed(kind: type[Proto], raw: memoryview) -> Any:
    try:
        return kind.FromString(bytes(raw))
    except DecodeError:
        raise _unreadable() from None


def _unreadable() -> LinkError:
    return LinkError(Problem("answer", "an answer cannot be read", "Compare the versions of fedscan on both sides"))


def _content(raw: memoryview) -> memoryview | None:
    """The object in an answer of the usual form, not copied; None when the answer is of another form."""
    front = _FOUND + _CONTENT
    if bytes(raw[: len(front)]) != front:
        return None
    length, at = 0, len(front)
    for shift in range(0, 35, 7):
        if at >= len(raw):
            return None
        length |= (raw[at] & 0x7F) << shift
        at += 1
        if not raw[at - 1] & 0x80:
            return raw[at:] if length == len(raw) - at else None
    return None


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])
