"""Requests that no site of ours makes, over real TLS: each is refused, said in the log, and the next site is served."""

import json
import secrets
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.superlink.main import create_app

from server.port.gate import ROUTES
from tests.e2e import hostile
from tests.e2e.hostile import HOST, PATIENT, Federation, Keys, Notes

MEDIA = "application/protobuf"


class Town:
    """One coordinator, two sites that behave, and a third that does not."""

    def __init__(self, federation: Federation, notes: Notes, fleet_end: Any) -> None:
        self.federation, self.notes = federation, notes
        self.keys = {name: federation.keys(name) for name in ("oslo", "bergen", "mallory")}
        self.sites = {name: fleet_end(federation, keys).activate() for name, keys in self.keys.items()}
        self.client = httpx.Client(
            base_url=f"https://{HOST}:{federation.link.port}", verify=federation.tls(self.mallory), timeout=20
        )

    @property
    def mallory(self) -> Keys:
        return self.keys["mallory"]

    def headers(self, of: str = "mallory", age: float = 1.0, **changes: str) -> dict[str, str]:
        """Signed as a node of Flower's signs."""
        node, moment = self.keys[of].node, (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        right = {
            "content-type": MEDIA, "fedscan-instance": self.sites[of].instance, "flwr-timestamp": moment,
            "flwr-public-key": b64encode(public_key_to_bytes(node.public_key())).decode(),
            "flwr-signature": b64encode(sign_message(node, moment.encode())).decode(),
        }  # fmt: skip
        return {**right, **changes}

    def post(self, route: str, body: bytes, **headers: Any) -> int:
        before = self.federation.link.refusals.count
        status = self.client.post(f"/v1/fleet/{route}", content=body, headers=self.headers(**headers)).status_code
        assert self.federation.link.refusals.count > before or status == 200
        return status

    def goes_on(self) -> bool:
        """Whether the others are served."""
        for name in ("oslo", "bergen"):
            self.sites[name].poll()
        return True


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, fleet_end: Any) -> Iterator[Town]:
    federation = Federation(tmp_path_factory.mktemp("town"), "oslo", "bergen", "mallory")
    with hostile.noting() as notes, federation.serving(rate=1000):
        made = Town(federation, notes, fleet_end)
        yield made
        made.client.close()
        for site in made.sites.values():
            site.close()


def every_route(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of all that Flower's app has, however it is nested and whether documented or not."""
    found: set[tuple[str, str]] = set()

    def walk(routes: Any, prefix: str) -> None:
        for route in routes:
            for candidate in getattr(route, "_effective_candidates", None) or [route]:
                inner = getattr(candidate, "routes", None) or getattr(
                    getattr(candidate, "original_router", None), "routes", None
                )
                if inner is not None:
                    walk(inner, prefix)
                if getattr(candidate, "path", None):
                    found.update((m, prefix + candidate.path) for m in getattr(candidate, "methods", None) or {"GET"})

    walk(app.router.routes, "")
    found.update((m.upper(), path) for path, methods in app.openapi()["paths"].items() for m in methods)
    return found


def test_every_route_that_flower_s_app_has_is_shut_but_eight(town: Town) -> None:
    """The list is the app's own, with its control and runtime APIs, which need no login in Flower's open edition."""
    routes = every_route(create_app())
    paths = {path for _, path in routes}
    assert len(paths) > 70
    assert {"/v1/control/start-run", "/v1/control/stream-logs", "/v1/runtime/acquire-task", "/docs"} <= paths
    assert paths >= ROUTES
    for method, path in sorted(routes):
        if path in ROUTES and method == "POST":
            continue
        answer = town.client.request(method, path.replace("{", "").replace("}", ""), headers=town.headers())
        assert answer.status_code == 404, (method, path)
        assert answer.text in ("", '{"detail": "not open"}')
    assert town.goes_on()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND"])
def test_the_eight_answer_to_post_only(town: Town, method: str) -> None:
    with talk(town, f"{method} /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as answer:
        assert status_of(answer) in (404, 0)
    assert town.goes_on()


def bodies(node: int) -> dict[str, Any]:
    """A request of the right form to each route, for the node of that number."""
    me = Node(node_id=node)
    return {
        "deactivate-node": DeactivateNodeRequest(node_id=node),
        "send-node-heartbeat": SendNodeHeartbeatRequest(node=me, heartbeat_interval=10),
        "pull-messages": PullMessagesRequest(node=me),
        "push-messages": PushMessagesRequest(node=me),
        "pull-object": PullObjectRequest(node=me, object_id="0" * 64),
        "push-object": PushObjectRequest(node=me, object_id="0" * 64, object_content=b"x", session_id="a.b"),
        "confirm-message-received": ConfirmMessageReceivedRequest(node=me, message_object_id="0" * 64),
    }


VERBS = sorted(route.rpartition("/")[2] for route in ROUTES)
GARBAGE = {
    "nothing": b"",
    "no protobuf": b"\xff" * 99,
    "half": b"\x0a\xff\xff\xff\xff\x07" + b"x" * 9,
    "deep": b"\x0b" * 5000,
    "unknown fields": b"\xfa\x7f\x04code" * 50,
    "text": json.dumps({"patient": PATIENT}).encode(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_garbage_is_refused_by_every_route(town: Town, verb: str) -> None:
    for name, body in GARBAGE.items():
        status = town.post(verb, body)
        assert 400 <= status < 500, name
    assert town.goes_on()


@pytest.mark.parametrize("verb", VERBS)
def test_no_site_speaks_for_another(town: Town, verb: str) -> None:
    """A right certificate, key and signature, with another site's node in the request."""
    oslo = town.sites["oslo"]
    if verb == "activate-node":
        body = ActivateNodeRequest(public_key=oslo.public_key, heartbeat_interval=10)
    else:
        body = bodies(oslo.node.node_id)[verb]
    assert town.post(verb, body.SerializeToString()) == 401
    assert town.goes_on()
    assert set(town.federation.link.fleet.online()) == {"oslo", "bergen", "mallory"}


@pytest.mark.parametrize(
    ("age", "status"), [(-7.0, 401), (311.0, 401), (10**6, 401), (-4.0, 200), (300.0, 200)], ids=str
)  # fmt: skip
def test_a_signature_is_good_for_minutes_only(town: Town, age: float, status: int) -> None:
    body = bodies(town.sites["mallory"].node.node_id)["pull-messages"].SerializeToString()
    assert town.post("pull-messages", body, age=age) == status


def test_headers_that_were_seen_are_worth_nothing_with_another_certificate(town: Town) -> None:
    """Flower signs the time only: headers of one request fit any other. Here the key belongs to a certificate."""
    body = bodies(town.sites["oslo"].node.node_id)["pull-messages"].SerializeToString()
    assert town.post("pull-messages", body, of="oslo") == 403
    assert town.goes_on()


HEARTBEATS = [0.0, -1.0, 1e9, float("inf"), float("nan")]


@pytest.mark.parametrize("interval", HEARTBEATS, ids=str)
def test_no_site_is_online_for_ever(town: Town, interval: float) -> None:
    mallory = town.sites["mallory"]
    asked = SendNodeHeartbeatRequest(node=mallory.node, heartbeat_interval=interval)
    assert 400 <= town.post("send-node-heartbeat", asked.SerializeToString()) < 500
    again = ActivateNodeRequest(public_key=mallory.public_key, heartbeat_interval=interval)
    assert 400 <= town.post("activate-node", again.SerializeToString()) < 500
    mallory.activate()
    assert town.goes_on()


@pytest.mark.parametrize(
    "media", ["application/json", "", f"text/{PATIENT}", "multipart/form-data", "application/protobuf, text/html"]
)
def test_only_protobuf_is_taken_and_no_header_reaches_the_log(town: Town, media: str) -> None:
    body = bodies(town.sites["mallory"].node.node_id)["pull-messages"].SerializeToString()
    more = {"content-type": media, "flwr-package-version": PATIENT, "traceparent": PATIENT, "user-agent": PATIENT}
    assert town.post("pull-messages", body, **more) == 415
    assert PATIENT not in town.notes.text
    assert town.goes_on()


def test_an_object_tree_without_end_is_refused(town: Town) -> None:
    tree = ObjectTree(object_id="0" * 64)
    for _ in range(45):
        tree = ObjectTree(object_id=secrets.token_hex(32), children=[tree] * 2 if tree.ByteSize() < 60_000 else [tree])
    asked = PushMessagesRequest(node=town.sites["mallory"].node, messages_list=[{}], message_object_trees=[tree])
    assert 400 <= town.post("push-messages", asked.SerializeToString()) < 500
    assert town.goes_on()


def talk(town: Town, raw: bytes, seconds: float = 4) -> Any:
    """What comes back for bytes of one's own on a connection that mallory's certificate opened."""

    class Answer:
        text = b""

        def __enter__(self) -> "Answer":
            plain = socket.create_connection((HOST, town.federation.link.port), timeout=seconds)
            line = town.federation.tls(town.mallory).wrap_socket(plain, server_hostname=HOST)
            with line, suppress(OSError):
                line.sendall(raw)
                while b"\r\n\r\n" not in self.text and (more := line.recv(65536)):
                    self.text += more
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Answer()


def status_of(answer: Any) -> int:
    """The status, 0 when the connection was closed without a word."""
    return int(answer.text.split()[1]) if answer.text.startswith(b"HTTP/") else 0


def lines(town: Town, first: str, *more: str, body: bytes = b"") -> bytes:
    known = "".join(f"{k}: {v}\r\n" for k, v in town.headers().items())
    return "".join([first, "\r\n", known, *(f"{m}\r\n" for m in more), "\r\n"]).encode() + body


FLEET = "POST /v1/fleet/pull-messages HTTP/1.1"
SMUGGLED = b"0\r\n\r\nPOST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
ODD: dict[str, tuple[str, list[str], bytes]] = {
    "two ways to say the length": (FLEET, ["Host: x", "Content-Length: 4", "Transfer-Encoding: chunked"], SMUGGLED),
    "two lengths": (FLEET, ["Host: x", "Content-Length: 4", "Content-Length: 5"], b"abcde"),
    "a negative length": (FLEET, ["Host: x", "Content-Length: -1"], b""),
    "a length with a sign": (FLEET, ["Host: x", "Content-Length: +4"], b"abcd"),
    "an endless length": (FLEET, ["Host: x", f"Content-Length: {'9' * 400}"], b""),
    "an endless chunk": (FLEET, ["Host: x", "Transfer-Encoding: chunked"], b"FFFFFFFFFFFFFFFFF\r\n" + b"x" * 99),
    "no chunk": (FLEET, ["Host: x", "Transfer-Encoding: chunked"], b"patient\r\n"),
    "gzip on the way": (FLEET, ["Host: x", "Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n"),
    "compressed": (FLEET, ["Host: x", "Content-Encoding: gzip", "Content-Length: 4"], b"abcd"),
    "without a host": (FLEET, ["Content-Length: 0"], b""),
    "a line feed in a header": (FLEET, ["Host: x", "X-A: b\nflwr-public-key: c", "Content-Length: 0"], b""),
    "websocket": ("GET /v1/fleet/pull-messages HTTP/1.1", ["Host: x", "Connection: Upgrade", "Upgrade: websocket",
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"], b""),
    "HTTP/2": ("PRI * HTTP/2.0", [], b"SM\r\n\r\n"),
    "h2c": (FLEET, ["Host: x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk",
                    "Content-Length: 4"], b"\xff\xff\xff\xff"),
    "HTTP/0.9": ("GET /v1/fleet/pull-messages", [], b""),
    "a whole address": ("POST https://x/v1/control/start-run HTTP/1.1", ["Host: x", "Content-Length: 0"], b""),
    "an address that begins right": ("POST https://x/v1/fleet/pull-messages HTTP/1.1", ["Host: x",
                                     "Content-Length: 0"], b""),
    "up and away": ("POST /v1/fleet/../control/start-run HTTP/1.1", ["Host: x", "Content-Length: 0"], b""),
    "up and away, coded": ("POST /v1/fleet/%2e%2e/control/start-run HTTP/1.1", ["Host: x", "Content-Length: 0"], b""),
    "a slash, coded": ("POST /v1%2Fcontrol/start-run HTTP/1.1", ["Host: x", "Content-Length: 0"], b""),
    "two slashes": ("POST //v1/control/start-run HTTP/1.1", ["Host: x", "Content-Length: 0"], b""),
    "a semicolon": ("POST /v1/fleet/pull-messages;/v1/control/start-run HTTP/1.1", ["Host: x", "Content-Length: 0"],
                    b""),
    "upper case": ("POST /V1/FLEET/PULL-MESSAGES HTTP/1.1", ["Host: x", "Content-Length: 0"], b""),
    "a host with a path": ("POST /v1/fleet/push-object HTTP/1.1", ["Host: x/v1/runtime/push-object?",
                           "Content-Length: 4"], b"\xff\xff\xff\xff"),
    "where it was really meant for": ("POST /docs HTTP/1.1", ["Host: x", "X-Original-URL: /v1/fleet/pull-messages",
                                      "X-Forwarded-Prefix: /v1/fleet", "X-HTTP-Method-Override: GET",
                                      "Content-Length: 0"], b""),
    "bytes": ("\x00\x01\x02\x03", [], b"\xff" * 99),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_http_of_an_odd_form_opens_nothing(town: Town, name: str) -> None:
    first, more, body = ODD[name]
    before = town.federation.link.refusals.count
    with talk(town, lines(town, first, *more, body=body)) as answer:
        assert status_of(answer) in (0, *range(400, 500)), answer.text
        assert answer.text.count(b"HTTP/1.1 2") == 0
    end = time.monotonic() + 10
    while town.federation.link.refusals.count == before:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert PATIENT not in town.notes.text
    assert town.goes_on()


def test_many_readers_of_nothing_keep_nobody_out(town: Town) -> None:
    """Streams of the control API, which block a thread each in Flower's server, are not there to be opened."""
    statuses: list[int] = []

    def ask() -> None:
        with suppress(OSError), talk(town, lines(town, "POST /v1/control/stream-logs HTTP/1.1", "Host: x",
                                                 "Content-Length: 0")) as answer:  # fmt: skip
            statuses.append(status_of(answer))

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    assert town.goes_on()
    for thread in threads:
        thread.join(30)
    assert set(statuses) <= {404, 0}


def test_every_refusal_of_this_town_is_a_line_that_holds_nothing_of_what_was_sent(town: Town) -> None:
    town.post("pull-messages", json.dumps({"patient": PATIENT}).encode())
    keys = [f.read_text() for f in town.federation.folder.rglob("*.pem") if "PRIVATE" in f.read_text()]
    secret = {line for text in keys for line in text.splitlines() if "---" not in line and line}
    assert secret
    for line in town.notes.refusals:
        assert set(line) == {"refused", "where", "why", "status", "times"}
    assert PATIENT not in town.notes.text
    assert not any(line in town.notes.text for line in secret)
