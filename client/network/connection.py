"""One connection to the coordinator: straight or through a proxy, TLS 1.3, one request after the other.

An answer is trusted in nothing: its size is bounded before a byte is kept, an exchange has a deadline however slowly
bytes drip, a redirect is an error, and nothing is ever inflated.
"""

import ctypes
import email.utils
import http.client
import io
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from client.network.problems import LinkError, Problem, of_error, of_status

CONNECT = 20.0  # seconds in which a connection, and then TLS, must stand
_SILENCE = 30.0  # seconds without a byte after which a connection is given up
_HEADERS = 64 * 1024  # bytes of an answer's headers
_DETAIL = 4 * 1024  # bytes of an error that are read
_KEPT = 64 * 1024  # bytes of answers above which their memory is kept for the next one
_PIECE = 256 * 1024  # bytes that are handed to TLS at a time
_MORE = 120.0  # seconds that a proxy or coordinator may ask to wait


class Socket(Protocol):
    """What a connection needs of a socket; TLS within TLS has it, too."""

    def settimeout(self, value: float | None, /) -> None:
        """Seconds for each of the others."""

    def send(self, data: memoryview, /) -> int:
        """Send some; how many."""

    def recv_into(self, buffer: memoryview, /) -> int | None:
        """Receive some; how many."""

    def close(self) -> None:
        """Close it."""

    def fileno(self) -> int:
        """Its number, -1 once it is closed."""


@dataclass
class Traffic:
    """Bytes of answers and requests so far."""

    received: int = 0
    sent: int = 0


class Exchange:
    """A socket in the shape that http.client uses, with a deadline, a bound on what comes, and a count."""

    def __init__(self, raw: Socket, traffic: Traffic) -> None:
        self._raw = raw
        self._traffic = traffic
        self._end = 0.0
        self._room = 0
        self._readers = 0
        self._closing = False
        self.heard = False

    def begin(self, seconds: float, room: int) -> None:
        """A request begins: its deadline, and how many bytes may come beside headers."""
        self._end = time.monotonic() + seconds
        self._room = room + _HEADERS
        self.heard = False

    def sendall(self, data: Any) -> None:
        """As a socket does, within the deadline."""
        view = memoryview(data).cast("B")
        while view:
            self._arm()
            sent = self._raw.send(view[:_PIECE])
            self._traffic.sent += sent
            view = view[sent:]

    def receive(self, buffer: memoryview) -> int:
        """Bytes that came into `buffer`, 0 at the end; raises LinkError when more come than may."""
        if self._room <= 0:
            raise LinkError(Problem("size", "an answer is longer than any answer may be", "Tell the coordinator"))
        self._arm()
        n = self._raw.recv_into(buffer) or 0
        self._traffic.received += n
        self._room -= n
        self.heard = self.heard or n > 0
        return n

    def _arm(self) -> None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._raw.settimeout(min(left, _SILENCE))

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client reads from."""
        self._readers += 1
        return io.BufferedReader(_Incoming(self), 16 * 1024)

    def close(self) -> None:
        """Close it once the answer that is being read has been read, as a socket does."""
        self._closing = True
        if not self._readers:
            self._raw.close()

    def left(self) -> None:
        """A reader is done."""
        self._readers -= 1
        if self._closing:
            self.close()

    def abort(self) -> None:
        """Close the socket, whoever still reads."""
        self._raw.close()

    def cut(self) -> None:
        """End it at once, whichever thread is sending on it, and drop what the system has not sent yet."""
        handle = self._raw.fileno()
        if handle >= 0:
            # connect(2) to no address: TCP resets the connection and empties its queue. Closing would go on sending.
            ctypes.CDLL(None).connect(handle, bytes(16), 16)


class _Incoming(io.RawIOBase):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._exchange.receive(memoryview(buffer))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._exchange.left()


class Connection:
    """A connection that is kept for many requests.

    Args:
        raw: TLS stands on it.
        host: Whom it reaches, for the Host header.
        port: And where.
        traffic: Counts its bytes.
    """

    def __init__(self, raw: Socket, host: str, port: int, traffic: Traffic) -> None:
        self._where = f"{host}:{port}"
        self._exchange = Exchange(raw, traffic)
        self._http = http.client.HTTPConnection(host, port)
        self._http.sock = self._exchange
        self._http.auto_open = 0
        self._buffer = bytearray()
        self.used = time.monotonic()
        self.requests = 0

    def ask(
        self, path: str, headers: Mapping[str, str], body: Sequence[bytes | memoryview], cap: int, seconds: float
    ) -> memoryview:
        """Send one request and return the body of its answer; a large one is valid until the next large one.

        Args:
            path: What is asked.
            headers: Beside length and host.
            body: Its pieces.
            cap: Bytes that the answer may have.
            seconds: In which all of it must be done.

        Raises:
            LinkError: Anything but a whole answer of 200. The connection is closed then.
            UnheardError: Not a byte came back on a connection that was used before: it had been closed meanwhile.
        """
        self._exchange.begin(seconds, cap)
        try:
            answer = self._send(path, headers, body)
            content = self._read(answer, cap)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            closed = isinstance(error, ConnectionError | http.client.HTTPException | ssl.SSLError)
            if self.requests and not self._exchange.heard and closed:
                raise UnheardError from None
            raise of_error(error, self._where) from None
        except BaseException:
            self.close()
            raise
        self.requests += 1
        self.used = time.monotonic()
        return content

    def _send(
        self, path: str, headers: Mapping[str, str], body: Sequence[bytes | memoryview]
    ) -> http.client.HTTPResponse:
        request = self._http
        request.putrequest("POST", path, skip_accept_encoding=True)
        # Whatever comes is taken as it is: what inflates could be a million times as large.
        request.putheader("Accept-Encoding", "identity")
        request.putheader("Content-Length", str(sum(memoryview(piece).nbytes for piece in body)))
        for name, value in headers.items():
            request.putheader(name, value)
        try:
            request.endheaders()
            for piece in body:
                self._exchange.sendall(piece)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            # Perhaps it said why before it closed.
            with suppress(OSError, http.client.HTTPException, LinkError):
                return request.getresponse()
            raise
        return request.getresponse()

    def _read(self, answer: http.client.HTTPResponse, cap: int) -> memoryview:
        if answer.status != 200:
            raise _refusal(answer)
        if answer.getheader("Content-Encoding", "identity") != "identity":
            raise _bad("encoding", "an answer is compressed, which nobody asked for")
        length = answer.getheader("Content-Length", "")
        if answer.getheader("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            raise _bad("size", "an answer does not say how long it is")
        if len(length) > 12 or int(length) > cap:
            raise _bad("size", f"an answer of {length[:20]} bytes was announced, {cap} are taken")
        n = int(length)
        if len(self._buffer) < n and n > _KEPT:
            self._buffer = bytearray(n)
        # A small answer has memory of its own: another thread's may come while a large one is looked at.
        content = memoryview(self._buffer if n > _KEPT else bytearray(n))[:n]
        got = 0
        while got < n:
            more = answer.readinto(content[got:])
            if not more:
                raise ConnectionResetError
            got += more
        answer.read()
        if answer.will_close:
            self.close()
        return content.toreadonly()

    @property
    def open(self) -> bool:
        """Whether another request can be made."""
        return self._http.sock is not None

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self._http.close()
        with suppress(OSError):
            self._exchange.abort()

    def cut(self) -> None:
        """End it at once from another thread, unsent bytes and all."""
        self._exchange.cut()


class UnheardError(Exception):
    """The other side had closed the connection while nothing was asked; ask again on a new one."""


def _bad(code: str, what: str) -> LinkError:
    return LinkError(Problem(code, what, "Tell the coordinator; a firewall on the way may also change answers"))


def _refusal(answer: http.client.HTTPResponse) -> LinkError:
    """The error for an answer that is not 200, with what it says of why."""
    skew = wait = None
    with suppress(TypeError, ValueError, OverflowError):
        then = email.utils.parsedate_to_datetime(answer.getheader("Date", "")).timestamp()
        skew = time.time() - then
    with suppress(ValueError):
        wait = min(max(float(answer.getheader("Retry-After", "0")), 0.0), _MORE)
    detail = ""
    with suppress(OSError, http.client.HTTPException, ValueError, RecursionError):
        if answer.getheader("Content-Type", "").startswith("application/json"):
            said = json.loads(answer.read(_DETAIL))
            detail = str(said.get("detail", "")) if isinstance(said, dict) else ""
    return of_status(answer.status, detail, skew, wait or 0.0)
