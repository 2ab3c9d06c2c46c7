"""The ways in which a hospital's network fails: a line that is slow and breaks, proxies, a coordinator that lies."""

import base64
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

_PIECE = 32 * 1024


class _Listener:
    """Accepts on the loopback, each connection on a thread of its own."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._over = False
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        with suppress(OSError):
            # Closed alone, it would live on in the thread that waits on it.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        self.cut()

    def cut(self) -> None:
        """Break all connections, as a line does: no farewell."""
        for end in list(self._open):
            _break(end)
        self._open.clear()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._guarded, args=(client,), daemon=True).start()

    def _guarded(self, client: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError, ValueError):
            self.serve(client)
        _break(client)

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def relay(self, client: Any, server: socket.socket) -> None:
        """Both ways, until either ends."""
        self._open |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client, "down"), daemon=True)
        back.start()
        self._pump(client, server, "up")
        back.join()

    def _pump(self, one: Any, other: Any, way: str) -> None:
        with suppress(OSError, ValueError):
            while data := one.recv(_PIECE):
                self.passing(way, len(data))
                other.sendall(data)
        _break(one)
        _break(other)

    def passing(self, way: str, n: int) -> None:
        """Called before bytes go on."""


def _break(end: Any) -> None:
    with suppress(OSError, ValueError):
        # Closed with a reset, which is what a firewall that forgets a connection sends.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError, ValueError):
        end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError, ValueError):
        end.close()


class Line(_Listener):
    """A line to the coordinator.

    Args:
        port: The coordinator's.
        rate: Bytes per second and direction; as many as there are if none.
        cuts: (direction, bytes): once so many have gone that way since the cut before, the line breaks.
        dark: Seconds after a cut in which nobody answers.
    """

    def __init__(
        self, port: int, rate: float | None = None, cuts: list[tuple[str, float]] | None = None, dark: float = 0.0
    ) -> None:
        super().__init__()
        self._target = port
        self.rate = rate
        self.cuts = cuts if cuts is not None else []
        self._dark = dark
        self._until = self._quiet = 0.0
        self._lock = threading.Lock()
        self._since = {"up": 0, "down": 0}
        self._free = {"up": 0.0, "down": 0.0}
        self.total = {"up": 0, "down": 0}
        self.connections = 0
        self.happened = 0

    def darken(self, seconds: float) -> None:
        """Break now, and stay broken."""
        self._until = time.monotonic() + seconds
        self.cut()

    def hush(self, seconds: float) -> None:
        """Let nothing through for so long, and tell nobody, as when a cable is out."""
        self._quiet = time.monotonic() + seconds

    def serve(self, client: socket.socket) -> None:
        if time.monotonic() < self._until:
            return
        time.sleep(max(self._quiet - time.monotonic(), 0))
        self.connections += 1
        self.relay(client, socket.create_connection(("127.0.0.1", self._target)))

    def passing(self, way: str, n: int) -> None:
        with self._lock:
            self.total[way] += n
            self._since[way] += n
            broken = bool(self.cuts) and self.cuts[0][0] == way and self._since[way] >= self.cuts[0][1]
            if broken:
                self.cuts.pop(0)
                self.happened += 1
                self._since = {"up": 0, "down": 0}
            if self.rate is not None:
                self._free[way] = max(self._free[way], time.monotonic()) + n / self.rate
        if broken:
            self.darken(self._dark)
            raise OSError("cut")
        until = max(self._quiet, self._free[way] if self.rate is not None else 0.0)
        time.sleep(max(until - time.monotonic(), 0))


class ConnectProxy(_Listener):
    """An HTTP proxy that opens tunnels.

    Args:
        login: `user:password` that it wants.
        context: TLS of its own.
    """

    def __init__(self, login: str | None = None, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._login = login
        self._context = context
        self.asked: list[str] = []

    def serve(self, client: socket.socket) -> None:
        end = self._context.wrap_socket(client, server_side=True) if self._context else client
        head = b""
        while b"\r\n\r\n" not in head:
            more = end.recv(4096)
            if not more:
                return
            head += more
        first, *lines = head.decode().split("\r\n")
        self.asked.append(first)
        if self._login is not None:
            wanted = f"Proxy-Authorization: Basic {base64.b64encode(self._login.encode()).decode()}"
            if wanted not in lines:
                end.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
                end.close()
                return
        host, _, port = first.split(" ")[1].rpartition(":")
        server = socket.create_connection((host, int(port)))
        end.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
        self.relay(end, server)


Answer = tuple[int, dict[str, str], bytes]
Rule = Callable[[str], Answer | None]


@dataclass
class Lies:
    """An ASGI app before the gate that answers some requests itself.

    Attributes:
        app: The gate.
        rule: Called with the route's last word; None lets the request through.
        told: What was answered.
    """

    app: Callable[..., Awaitable[None]]
    rule: Rule | None = None
    told: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        verb = scope.get("path", "").rpartition("/")[2]
        answer = self.rule(verb) if self.rule is not None and scope["type"] == "http" else None
        self.asked.append(verb)
        if answer is None:
            await self.app(scope, receive, send)
            return
        self.told.append(verb)
        status, headers, body = answer
        raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def lying(link: Any, rule: Rule | None = None) -> Lies:
    """Put lies before the gate of a coordinator that has not started yet."""
    lies = Lies(link._server.config.app, rule)
    link._server.config.app = lies
    return lies
