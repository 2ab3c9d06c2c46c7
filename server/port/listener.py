"""The port that hospitals reach: mutual TLS 1.3, and limits on connections before any of them costs much.

A connection is counted when it arrives; TLS starts only then. Who is too many, too slow to shake hands, to ask or to
read is closed. uvicorn, with h11, does the rest.
"""

import asyncio
import hashlib
import socket
import ssl
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.errors import FedscanError
from server.port.refusals import Refusals


@dataclass(frozen=True)
class Limits:
    """What one coordinator takes upon itself; seconds, bytes and counts.

    Attributes:
        connections: Open at the same time, shaking hands or not.
        per_site: Connections of one certificate.
        handshakes: Under way at the same time; one more ends the oldest of the address that has most of them.
        handshake: Seconds in which TLS must stand.
        idle: Seconds in which a connection must have asked for something, headers complete, or read on.
        headers: Bytes of all headers of a request.
        body: Seconds in which a request's body must be there.
        answer: Seconds in which a request must be answered and the answer be on its way.
        rate: Requests per second of one site, on average; twice as many at once.
        pending: Requests of one site that are being answered.
        large: Large objects, in or out, that are worked on at the same time.
        places: Large bodies that wait in memory until they are whole; further ones wait on disk.
        object: Bytes of a pushed object with what surrounds it; Flower cuts tensors into 5 MiB.
        small: Bytes of any other body.
    """

    connections: int = 512
    per_site: int = 8
    handshakes: int = 64
    handshake: float = 10
    idle: float = 30
    headers: int = 16 * 1024
    body: float = 120
    answer: float = 180
    rate: float = 100
    pending: int = 8
    large: int = 8
    places: int = 4
    object: int = 6 * 1024 * 1024
    small: int = 256 * 1024


def server_context(certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """TLS 1.3 only, a client certificate of our own CA needed, no session tickets: each connection shows it anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise FedscanError(f"the server's certificate cannot be used ({certificate}, {key}, {ca}): {error}") from None
    return context


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises FedscanError when the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise FedscanError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


class Server(uvicorn.Server):
    """uvicorn, behind a door of ours.

    Args:
        app: The ASGI app; it finds the SHA-256 of the client's certificate (hex) as `peer` in the scope's state.
        context: TLS, for each connection that comes.
        limits: What is too much.
        refusals: Told of whom was turned away.
    """

    def __init__(self, app: Any, context: ssl.SSLContext, limits: Limits, refusals: Refusals) -> None:
        super().__init__(
            uvicorn.Config(
                app, http=H11Protocol, ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False,
                proxy_headers=False, server_header=False, h11_max_incomplete_event_size=limits.headers,
                timeout_keep_alive=int(2 * limits.idle) + 1, timeout_graceful_shutdown=3,
            )
        )  # fmt: skip
        self.context = context
        self.limits = limits
        self.refusals = refusals
        self.per_site: Counter[str] = Counter()
        self._open = 0
        self._shaking: dict[asyncio.Transport, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(lambda: _Arrival(self), sock=s) for s in sockets or []]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end; close all others at once."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, SiteConnection) and not connection.busy:
                connection.transport.abort()
        await super().shutdown(sockets)

    def arrived(self, transport: asyncio.Transport) -> None:
        """A connection, before TLS."""
        address = str((transport.get_extra_info("peername") or ["?"])[0])
        if self._open >= self.limits.connections:
            self.refusals.say(address, "connection", "too many connections")
            transport.abort()
            return
        if len(self._shaking) >= self.limits.handshakes:
            crowd = Counter(self._shaking.values()).most_common(1)[0][0]
            oldest = next(t for t, a in self._shaking.items() if a == crowd)
            self.refusals.say(crowd, "connection", "too many unfinished handshakes")
            del self._shaking[oldest]
            oldest.abort()
        self._open += 1
        self._shaking[transport] = address
        task = asyncio.get_running_loop().create_task(self._shake(transport, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def left(self) -> None:
        """A connection is gone."""
        self._open -= 1

    async def _shake(self, transport: asyncio.Transport, address: str) -> None:
        protocol = SiteConnection(self)
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport, protocol, self.context, server_side=True,
                ssl_handshake_timeout=self.limits.handshake, ssl_shutdown_timeout=1,
            )  # fmt: skip
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            self.left()
            self.refusals.say(address, "connection", f"TLS: {getattr(error, 'reason', None) or type(error).__name__}")
            transport.abort()
            return
        finally:
            self._shaking.pop(transport, None)
        if secure is None:
            self.left()
            return
        protocol.secured(secure, transport)


class _Arrival(asyncio.Protocol):
    """What stands at the door until TLS takes over."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_server makes nothing else
        self._server.arrived(transport)


class SiteConnection(H11Protocol):
    """HTTP of one connection whose certificate is known; slow askers and slow readers are closed."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.config, server.server_state, server.lifespan.state)
        self._door = server
        self._early = b""
        self._gone = False
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._asking = False

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def secured(self, transport: asyncio.Transport, raw: asyncio.Transport) -> None:
        """TLS stands."""
        self._raw = raw
        if self._gone:
            self._door.left()
            return
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self._peer = hashlib.sha256(certificate).hexdigest()
        self._door.per_site[self._peer] += 1
        self.app_state = {**self.app_state, "peer": self._peer}
        self.connection_made(transport)
        self._wait()
        if self._door.per_site[self._peer] > self._door.limits.per_site:
            self._cut_off("too many connections of one certificate")
        elif self._early:
            self.data_received(self._early)
        self._early = b""

    def data_received(self, data: bytes) -> None:
        """Bytes of the site; asyncio may deliver some before it tells that TLS stands."""
        if self._peer:
            if not self.busy and self._left() and not self.transport.is_closing():
                self._cut_off("asks on without reading")  # the answers would pile up here
                return
            self._asking = True
            super().data_received(data)
        elif len(self._early) < self._door.limits.headers:
            self._early += data

    def handle_events(self) -> None:
        """A request that is complete up to its body has its deadlines at the gate."""
        super().handle_events()
        if self.busy:
            self._asking = False
            self._stop()

    def on_response_complete(self) -> None:
        """Answered: now it must read, and ask again, or be closed."""
        self._wait()
        # A site may have its answer, and ask again, before the app has said that this was all of it.
        if self._left() and self.conn.our_state is self.conn.their_state is h11.DONE and self.conn.trailing_data[0]:
            self._cut_off("asks on without reading")
            return
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP; uvicorn does not know whose they are."""
        self._door.refusals.say(self._peer, "connection", "no HTTP", 400)
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is counted no more."""
        self._gone = True
        self._stop()
        if self._peer:
            self._door.left()
            self._door.per_site[self._peer] -= 1
            if not self._door.per_site[self._peer]:
                del self._door.per_site[self._peer]
            super().connection_lost(exc)

    def _left(self) -> int:
        """Bytes that were answered and not yet sent; TLS hands them on to the connection beneath it."""
        return self.transport.get_write_buffer_size() + self._raw.get_write_buffer_size()

    def _wait(self) -> None:
        self._stop()
        self._unread = self._left()
        self._timer = self.loop.call_later(self._door.limits.idle, self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if 0 < self._left() < self._unread:
            self._wait()  # slow, but it reads
            return
        if self._unread or self._asking:
            self._cut_off("too slow")
        else:
            self.transport.abort()

    def _cut_off(self, why: str) -> None:
        self._door.refusals.say(self._peer, "connection", why)
        self.transport.abort()
