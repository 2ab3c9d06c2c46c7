"""The gate before Flower's API: eight routes and nothing else, for enrolled sites only, each with its own node key.

Who comes is known by the client certificate alone; whether it still may is asked of the enrolment with every request.
A body is counted as it arrives and is whole, and small enough, before anything looks at a byte of it.
"""

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.disk import not_written
from common.errors import FedscanError
from server.port.bodies import Bodies, Body
from server.port.inbox import Refused
from server.port.listener import Limits
from server.port.refusals import Refusals

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Piece = bytes | memoryview
Api = Callable[[str, Sequence[tuple[bytes, bytes]], memoryview], Sequence[Piece]]

ROUTES = frozenset(
    f"/v1/fleet/{verb}"
    for verb in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "pull-object",
        "push-object", "confirm-message-received",
    )
)  # fmt: skip
ACTIVATE = "/v1/fleet/activate-node"
PUSH_OBJECT, PULL_OBJECT = "/v1/fleet/push-object", "/v1/fleet/pull-object"
# These write to disk or hash megabytes; all others are answered where they come in, which is sooner than any thread.
SLOW = frozenset({PUSH_OBJECT, "/v1/fleet/push-messages"})
WHOLE = "whole"  # in the scope's state: the body was read to its end
NODE_KEY, INSTANCE = b"flwr-public-key", b"fedscan-instance"
_INSTANCE = re.compile(rb"[0-9a-f]{32}")
_WORKERS = 4  # threads for them
_LARGE_OF_ONE = 2  # large objects of one site at the same time, so that no site takes all places
_PIECE = 256 * 1024  # bytes of an answer that are handed to TLS at a time
_CLOSE = (b"connection", b"close")
_MEDIA = b"application/protobuf"
# All that the API gets to see: what nobody reads can do no harm.
_PASSED = frozenset({b"content-type", NODE_KEY, b"flwr-timestamp", b"flwr-signature", INSTANCE})


class SiteRecord(Protocol):
    """An enrolled site, seen through one of its certificates."""

    @property
    def name(self) -> str:
        """Its name in the federation."""

    @property
    def node_key(self) -> str:
        """Its node's public key (OpenSSH format)."""

    @property
    def revoked(self) -> bool:
        """Whether it may not take part any more."""

    @property
    def expires(self) -> datetime:
        """When the certificate ends."""


class Enrolled(Protocol):
    """The sites of the federation, as they stand at the moment of the question."""

    def by_certificate(self, sha256: str) -> SiteRecord | None:
        """The site that a certificate (SHA-256 of its DER form, hex) was issued to."""

    def sites(self) -> Iterable[SiteRecord]:
        """All sites, revoked ones too."""


@lru_cache(4096)
def key_on_the_wire(node_key: str) -> bytes:
    """A node key (OpenSSH format) as nodes send it: PEM, SubjectPublicKeyInfo."""
    return load_ssh_public_key(node_key.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Gate:
    """An ASGI app.

    Args:
        api: What the eight routes are answered with; raises Refused.
        enrolled: Who may come in.
        holder: The instance to which a site's node is bound now; None when it is not active.
        limits: What is too much.
        refusals: Told of whom was turned away.
        folder: Where bodies wait for which there is no room in memory.
    """

    def __init__(
        self,
        api: Api,
        enrolled: Enrolled,
        holder: Callable[[str], str | None],
        limits: Limits,
        refusals: Refusals,
        folder: Path,
    ) -> None:
        self._api = api
        self._enrolled = enrolled
        self._holder = holder
        self._limits = limits
        self._refusals = refusals
        self._folder = folder
        self._bodies = Bodies(limits.places, limits.object, folder)
        self._workers = ThreadPoolExecutor(_WORKERS, "gate")
        self._large = asyncio.Semaphore(limits.large)
        self._large_of: dict[str, asyncio.Semaphore] = {}
        self._pending: dict[str, int] = {}
        self._rates: dict[str, _Rate] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        who = scope["state"]["peer"]
        try:
            site = self._site(scope)
            who = site.name
            self._check(site, scope)
            await self._pass(site, scope, receive, send)
        except Refused as refusal:
            # The path is the stranger's text: it is logged only where it is one of ours.
            where = scope["path"] if scope["path"] in ROUTES else "another route"
            self._refusals.say(who, where, str(refusal), refusal.status)
            await _refuse(send, refusal, keep=WHOLE in scope["state"])

    def _site(self, scope: Scope) -> SiteRecord:
        """Who asks, by the certificate alone."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in ROUTES:
            raise Refused(404, "not open")
        try:
            site = self._enrolled.by_certificate(scope["state"]["peer"])
        except FedscanError as error:
            raise Refused(503, f"the enrolled sites cannot be read: {error}") from None
        if site is None:
            raise Refused(403, "this certificate belongs to no enrolled site")
        return site

    def _check(self, site: SiteRecord, scope: Scope) -> None:
        """Whether the site may ask this, now, from this process."""
        if site.revoked:
            raise Refused(403, "this site's enrolment was revoked")
        if site.expires <= datetime.now(UTC):
            raise Refused(403, "this certificate has expired")
        headers = _headers(scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.headers:
            raise Refused(431, f"the headers may have {self._limits.headers} bytes")
        try:
            key = base64.b64decode(headers.get(NODE_KEY, b""), validate=True)
        except binascii.Error:
            key = b""
        if key != key_on_the_wire(site.node_key):
            raise Refused(403, "this certificate belongs to another node key")
        instance = headers.get(INSTANCE, b"")
        if not _INSTANCE.fullmatch(instance):
            raise Refused(400, "the header fedscan-instance must hold 32 hexadecimal digits")
        if scope["path"] != ACTIVATE and instance.decode() != self._holder(site.name):
            raise Refused(409, "the node is not activated by this process")

    async def _pass(self, site: SiteRecord, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._rates.setdefault(site.name, _Rate(self._limits.rate)).take():
            raise Refused(429, "too many requests per second")
        if self._pending.get(site.name, 0) >= self._limits.pending:
            raise Refused(429, "too many requests at the same time")
        self._pending[site.name] = self._pending.get(site.name, 0) + 1
        try:
            cap = self._limits.object if scope["path"] == PUSH_OBJECT else self._limits.small
            with await self._body(scope, receive, cap) as body:
                scope["state"][WHOLE] = True
                if scope["path"] in (PUSH_OBJECT, PULL_OBJECT):
                    async with self._large_of.setdefault(site.name, asyncio.Semaphore(_LARGE_OF_ONE)), self._large:
                        await self._exchange(site, scope, body, send)
                else:
                    await self._exchange(site, scope, body, send)
        finally:
            self._pending[site.name] -= 1

    async def _body(self, scope: Scope, receive: Receive, cap: int) -> Body:
        """The whole body, to be closed by who asked for it."""
        headers = _headers(scope)
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "bodies are taken as they are, not compressed")
        if headers.get(b"content-type", b"") != _MEDIA:
            raise Refused(415, "bodies are protobuf")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > cap:
            raise Refused(413, f"the body may have {cap} bytes")
        body = self._bodies.begin()
        try:
            async with asyncio.timeout(self._limits.body):
                await _read(receive, body, cap)
        except TimeoutError:
            body.close()
            raise Refused(408, f"the body was not there after {self._limits.body:g} s") from None
        except OSError as error:
            body.close()
            raise Refused(503, str(not_written(self._folder, error))) from None
        except BaseException:
            body.close()
            raise
        return body

    async def _exchange(self, site: SiteRecord, scope: Scope, body: Body, send: Send) -> None:
        started = False
        try:
            async with asyncio.timeout(self._limits.answer):
                pieces = await self._ask(scope, body)
                started = True
                await self._tell(site, scope, pieces, send)
        except TimeoutError:
            if started:
                raise  # half an answer is out: uvicorn closes the connection
            raise Refused(503, "the answer took too long") from None

    async def _ask(self, scope: Scope, body: Body) -> Sequence[Piece]:
        passed = [(n, v) for n, v in scope["headers"] if n in _PASSED]
        if scope["path"] not in SLOW:
            return self._work(scope["path"], passed, body)
        # The thread goes on where this request has been given up; until it ends, nobody else may have the body's place.
        loop, shared = asyncio.get_running_loop(), body.share()
        work = loop.run_in_executor(self._workers, self._work, scope["path"], passed, shared)
        work.add_done_callback(lambda _: shared.close())
        return await asyncio.shield(work)

    def _work(self, path: str, headers: Sequence[tuple[bytes, bytes]], body: Body) -> Sequence[Piece]:
        try:
            return self._api(path, headers, body.whole())
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, this request gets nothing and the log says so
            raise Refused(500, f"{type(error).__name__} in the coordinator itself") from None

    async def _tell(self, site: SiteRecord, scope: Scope, pieces: Sequence[Piece], send: Send) -> None:
        """Send an answer; a large one only as fast as it is read, or TLS would hold all of it twice more."""
        length = str(sum(map(len, pieces))).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", _MEDIA), (b"content-length", length)]})  # fmt: skip
        for piece in pieces:
            for at in range(0, len(piece), _PIECE):
                try:
                    async with asyncio.timeout(self._limits.idle):
                        part = memoryview(piece)[at : at + _PIECE]
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                except TimeoutError:
                    self._refusals.say(site.name, scope["path"], "too slow")
                    raise
        await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive, body: Body, cap: int) -> None:
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refused(400, "the connection broke off within the body")
        if body.length + len(event.get("body", b"")) > cap:
            raise Refused(413, f"the body may have {cap} bytes")
        body.write(event.get("body", b""))
        more = event.get("more_body", False)


class _Rate:
    """A bucket that fills with `rate` a second and holds twice that."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = 2 * rate
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(2 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Headers by name; of one that came twice, all values, so that no single one is believed."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        found[name] = found[name] + b"," + value if name in found else value
    return found


async def _refuse(send: Send, refusal: Refused, keep: bool) -> None:
    """Say no; the connection is kept only when all that came on it was read."""
    # What went wrong in here is for the coordinator's log, not for the site.
    why = str(refusal) if refusal.status < 500 else "not now"
    text = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    if not keep:
        headers.append(_CLOSE)
    if refusal.status in (429, 503):
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
