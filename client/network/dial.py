"""The way to the coordinator: TCP, straight or through a proxy, and TLS on it."""

import base64
import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from urllib3.util.ssltransport import SSLTransport

from client.network.connection import CONNECT, Exchange, Socket, Traffic
from client.network.problems import LinkError, Problem, of_error


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy on the way.

    Attributes:
        url: `http://` or `https://`, with user and password where it wants them.
        ca: Authorities for the proxy's own certificate only (PEM); those of the system if none.
    """

    url: str = field(repr=False)
    ca: Path | None = None

    @property
    def shown(self) -> str:
        """Where it is, without user and password."""
        parts = urlsplit(self.url)
        return f"the proxy {parts.hostname}:{parts.port}"


def connect(host: str, port: int, context: ssl.SSLContext, proxy: Proxy | None) -> Socket:
    """A connection to `host` on which TLS stands; raises LinkError."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if proxy is None:
        return cast(Socket, _guarded(where, lambda: _tls(_tcp(host, port), context, host)))
    raw = _guarded(proxy.shown, lambda: _to_proxy(proxy))
    try:
        _tunnel(raw, proxy, where)
        return cast(Socket, _guarded(where, lambda: _tls(raw, context, host)))
    except BaseException:
        raw.close()
        raise


def _guarded(where: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise of_error(error, where) from None


def _tcp(host: str, port: int) -> socket.socket:
    raw = socket.create_connection((host, port), CONNECT)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return raw


def _tls(raw: socket.socket, context: ssl.SSLContext, host: str) -> Any:
    try:
        raw.settimeout(CONNECT)
        if isinstance(raw, ssl.SSLSocket):
            return SSLTransport(raw, context, server_hostname=host)
        return context.wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise


def _to_proxy(proxy: Proxy) -> socket.socket:
    parts = urlsplit(proxy.url)
    host, port = parts.hostname or "", parts.port or 0
    raw = _tcp(host, port)
    if parts.scheme == "http":
        return raw
    context = ssl.create_default_context(cafile=str(proxy.ca) if proxy.ca else None)
    return cast(socket.socket, _tls(raw, context, host))


def _tunnel(raw: socket.socket, proxy: Proxy, where: str) -> None:
    """Ask the proxy for a way to the coordinator."""
    parts = urlsplit(proxy.url)
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}")
    exchange = Exchange(cast(Socket, raw), Traffic())
    exchange.begin(CONNECT, 0)
    with http.client.HTTPResponse(cast(socket.socket, exchange), method="CONNECT") as answer:

        def ask() -> None:
            exchange.sendall("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
            answer.begin()

        _guarded(proxy.shown, ask)
        if answer.status == 407:
            remedy = "Write them into site.yaml, network.proxy: http://user:password@host:port"
            raise LinkError(Problem("proxy-login", f"{proxy.shown} wants a user and a password, or other ones", remedy))
        if not 200 <= answer.status < 300:
            what = f"{proxy.shown} opens no way to {where} (HTTP {answer.status})"
            remedy = "Ask the proxy's people to allow CONNECT to that address and port"
            raise LinkError(Problem("proxy-refused", what, remedy))
