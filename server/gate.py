"""The gate before Flower's app: eight routes and nothing else, for enrolled sites only, each with its own node key.

Who comes is known by the client certificate alone; whether it still may is asked of the enrolment with every request.
A body is counted as it arrives and is whole, and small enough, before Flower sees a byte of it.
"""

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.disk import not_written
from common.errors import FedscanError
from server.inbox import Refused
from server.listener import Limits
from server.refusals import Refusals

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTES = frozenset(
    f"/v1/fleet/{verb}"
    for verb in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "pull-object",
        "push-object", "confirm-message-received",
    )
)  # fmt: skip
ACTIVATE = "/v1/fleet/activate-node"
PUSH_OBJECT, PULL_OBJECT = "/v1/fleet/push-object", "/v1/fleet/pull-object"
OBJECT = "object"
NODE_KEY, INSTANCE = b"flwr-public-key", b"fedscan-instance"
_INSTANCE = re.compile(rb"[0-9a-f]{32}")
_IN_MEMORY = 64 * 1024  # bytes of a body that need no file
_LARGE_OF_ONE = 2  # large objects of one site at the same time, so that no site takes all places
_PIECE = 256 * 1024  # bytes of an answer that are handed to TLS at a time
_CLOSE = (b"connection", b"close")
_MEDIA = b"application/protobuf"
# All that Flower's app gets to see: it writes what it does not like into the log, as it came.
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
    """An ASGI app before another.

    Args:
        app: Flower's app.
        enrolled: Who may come in.
        holder: The instance to which a site's node is bound now; None when it is not active.
        limits: What is too much.
        refusals: Told of whom was turned away.
        folder: Where bodies wait until they are whole.
        split: Takes the object out of a request that pushes one; the app finds it as `OBJECT` in the scope's state.
    """

    def __init__(
        self,
        app: App,
        enrolled: Enrolled,
        holder: Callable[[str], str | None],
        limits: Limits,
        refusals: Refusals,
        folder: Path,
        split: Callable[[bytes], tuple[bytes, bytes]],
    ) -> None:
        self._app = app
        self._enrolled = enrolled
        self._holder = holder
        self._limits = limits
        self._refusals = refusals
        self._folder = folder
        self._split = split
        self._large = asyncio.Semaphore(limits.large)
        self._large_of: dict[str, asyncio.Semaphore] = {}
        self._pending: dict[str, int] = {}
        self._rates: dict[str, _Rate] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
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
            await _answer(send, refusal)

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
                if scope["path"] in (PUSH_OBJECT, PULL_OBJECT):
                    async with self._large_of.setdefault(site.name, asyncio.Semaphore(_LARGE_OF_ONE)), self._large:
                        await self._forward(site, scope, body, send)
                else:
                    await self._forward(site, scope, body, send)
        finally:
            self._pending[site.name] -= 1

    async def _body(self, scope: Scope, receive: Receive, cap: int) -> SpooledTemporaryFile[bytes]:
        """The whole body; a large one waits on disk, so that many slow sites cost no memory."""
        headers = _headers(scope)
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "bodies are taken as they are, not compressed")
        if headers.get(b"content-type", b"") != _MEDIA:
            raise Refused(415, "bodies are protobuf")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > cap:
            raise Refused(413, f"the body may have {cap} bytes")
        # Closed by who asked for it.
        body: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))  # noqa: SIM115
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
        body.seek(0)
        return body

    async def _forward(self, site: SiteRecord, scope: Scope, body: SpooledTemporaryFile[bytes], send: Send) -> None:
        request = body.read()
        if scope["path"] == PUSH_OBJECT:
            # Frameworks keep a request's body in circles, until a garbage collection: megabytes go around them.
            request, content = self._split(request)
            scope["state"][OBJECT] = [content]
            del content
        passed = {**scope, "headers": [(n, v) for n, v in scope["headers"] if n in _PASSED], "query_string": b""}
        events: list[Event] = [{"type": "http.request", "body": request, "more_body": False}]
        never = asyncio.Event()
        started = 0

        async def receive() -> Event:
            if events:
                return events.pop()
            await never.wait()
            return {"type": "http.disconnect"}

        async def noting(event: Event) -> None:
            nonlocal started
            if event["type"] == "http.response.start":
                started = event["status"]
            elif started >= 400:
                why = bytes(event.get("body", b""))[:200].decode(errors="replace")
                if why:
                    self._refusals.say(site.name, scope["path"], why, started)
            await self._in_pieces(site, scope, event, send)

        try:
            async with asyncio.timeout(self._limits.answer):
                await self._app(passed, receive, noting)
        except TimeoutError:
            if started:
                raise  # half an answer is out: uvicorn closes the connection
            raise Refused(503, "the answer took too long") from None
        finally:
            scope["state"].clear()

    async def _in_pieces(self, site: SiteRecord, scope: Scope, event: Event, send: Send) -> None:
        """Send an event; a large body only as fast as it is read, or TLS would hold all of it twice more."""
        body = memoryview(event.get("body", b""))
        while len(body) > _PIECE:
            try:
                async with asyncio.timeout(self._limits.idle):
                    await send({"type": event["type"], "body": bytes(body[:_PIECE]), "more_body": True})
            except TimeoutError:
                self._refusals.say(site.name, scope["path"], "too slow")
                raise
            body = body[_PIECE:]
        await send({**event, "body": bytes(body)} if "body" in event else event)


async def _read(receive: Receive, body: SpooledTemporaryFile[bytes], cap: int) -> None:
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refused(400, "the connection broke off within the body")
        if body.tell() + len(event.get("body", b"")) > cap:
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


async def _answer(send: Send, refusal: Refused) -> None:
    # What went wrong in here is for the coordinator's log, not for the site.
    why = str(refusal) if refusal.status < 500 else "not now"
    text = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode()), _CLOSE]
    if refusal.status in (429, 503):
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
