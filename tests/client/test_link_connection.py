"""What a connection takes from whom it reaches, and how failures are put into words."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from client.network.connection import Connection, Traffic, UnheardError
from client.network.dial import Proxy
from client.network.problems import Backoff, LinkError, of_error, of_status
from client.site import Network, site_of_home
from common.errors import StudyError

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def answering(*answers: Callable[[socket.socket], None] | bytes) -> Iterator[Connection]:
    """A connection whose other end answers one request after the other."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with suppress(OSError), theirs:
            for answer in answers:
                while b"\r\n\r\n" not in theirs.recv(65536):
                    pass
                theirs.sendall(answer) if isinstance(answer, bytes) else answer(theirs)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    connection = Connection(ours, "fed.example.org", 8443, Traffic())
    yield connection
    connection.close()
    thread.join(10)


def ask(connection: Connection, cap: int = 1000, seconds: float = 5) -> bytes:
    return bytes(connection.ask("/x", {}, [b""], cap, seconds))


def code(connection: Connection, cap: int = 1000, seconds: float = 5) -> str:
    with pytest.raises(LinkError) as found:
        ask(connection, cap, seconds)
    assert not connection.open
    return found.value.problem.code


def test_a_connection_is_kept() -> None:
    with answering(GOOD, GOOD) as connection:
        assert [ask(connection), ask(connection)] == [b"ok", b"ok"]
        assert connection.open


def test_who_says_close_is_closed() -> None:
    with answering(GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as connection:
        assert ask(connection) == b"ok"
        assert not connection.open


def test_a_connection_that_was_closed_meanwhile_is_told_from_one_that_fails() -> None:
    with answering(GOOD) as connection:
        ask(connection)
        time.sleep(0.1)
        with pytest.raises(UnheardError):
            ask(connection)
    with answering() as connection:
        assert code(connection) == "cut"


ODD = {
    "half an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "cut"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "answer"),
    "a length that is none": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "size"),
    "a length of 400 digits": (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\nok", "size"),
    "Arabic digits": ("HTTP/1.1 200 OK\r\nContent-Length: ٢\r\n\r\nok".encode(), "size"),
    "more than is taken": (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "size"),
    "in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "size"),
    "deflated": (b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 2\r\n\r\nok", "encoding"),
    "a redirect": (b"HTTP/1.1 302 Away\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", "redirect"),
    "endless continue": (b"HTTP/1.1 100 Continue\r\n\r\n" * 9000, "size"),
    "a line without end": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "answer"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_answers(what: str) -> None:
    answer, expected = ODD[what]
    with answering(answer) as connection:
        assert code(connection) == expected


def test_who_drips_does_not_hold_the_link() -> None:
    def drip(end: socket.socket) -> None:
        for byte in GOOD * 100:
            end.sendall(bytes([byte]))
            time.sleep(0.05)

    with answering(drip) as connection:
        begun = time.monotonic()
        assert code(connection, seconds=0.5) == "timeout"
        assert time.monotonic() - begun < 3


def test_why_a_request_was_refused_is_read_although_the_other_end_closed() -> None:
    said = b'{"detail": "this site\'s enrolment was revoked\\u001b[31m"}'
    answer = b"HTTP/1.1 403 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    with answering(answer % (len(said), said)) as connection, pytest.raises(LinkError) as found:
        ask(connection)
    assert found.value.status == 403
    assert "enrolment was revoked" in str(found.value)
    assert "\x1b" not in str(found.value)


CODES = {
    "dns": socket.gaierror(-2, "Name or service not known"),
    "timeout": TimeoutError(),
    "refused": ConnectionRefusedError(),
    "cut": ConnectionResetError(),
    "network": OSError(101, "Network is unreachable"),
    "answer": http.client.BadStatusLine("x"),
    "tls": ssl.SSLError(1, "[SSL] something"),
}


@pytest.mark.parametrize("expected", CODES)
def test_failures_have_codes_and_remedies(expected: str) -> None:
    problem = of_error(CODES[expected], "fed.example.org:443").problem
    assert problem.code == expected
    assert "fed.example.org:443" in problem.what
    assert len(problem.remedy) > 20


@pytest.mark.parametrize(("skew", "expected"), [(400.0, "ahead"), (-20.0, "behind")])
def test_a_wrong_clock_is_measured(skew: float, expected: str) -> None:
    problem = of_status(401, skew=skew).problem
    assert problem.code == "clock"
    assert f"{abs(skew):.0f} s {expected}" in problem.what
    assert of_status(401, skew=0.5).problem.code == "signature"


def test_pauses_grow_within_bounds() -> None:
    backoff = Backoff(30)
    pauses = [backoff.pause() for _ in range(20)]
    assert pauses[0] <= 0.5
    assert 15 <= pauses[-1] <= 30
    assert len({round(p, 9) for p in pauses[-8:]}) > 1
    assert backoff.pause(at_least=10**9) <= 30
    backoff.calm()
    assert backoff.pause() <= 0.5


# Settings


def settings(folder: Path, network: object) -> Network:
    (folder / "site.yaml").write_text(yaml.safe_dump({"name": "oslo", "data": "scans", "network": network}))
    return site_of_home(folder).network


def test_the_proxys_login_is_never_shown(tmp_path) -> None:
    network = settings(tmp_path, {"proxy": "https://oslo:s3cr3t@proxy.example.org:3128", "proxy_ca": "proxy.pem"})
    assert network.proxy_ca == (tmp_path / "proxy.pem").resolve()
    assert network.proxy is not None
    proxy = Proxy(network.proxy.get_secret_value())
    assert proxy.shown == "the proxy proxy.example.org:3128"
    for shown in (repr(network), str(network), network.model_dump_json(), repr(proxy), str(proxy)):
        assert "s3cr3t" not in shown


@pytest.mark.parametrize(
    "network",
    [
        {"proxy": "proxy.example.org:3128/s3cr3t"}, {"proxy": "socks5://oslo:s3cr3t@proxy:1080"},
        {"proxy": "http://oslo:s3cr3t@proxy"}, {"proxy": "http://oslo:s3cr3t@proxy:99999"},
        {"proxy": "http://oslo:s3cr3t@:80"}, {"proxy": {"url": "s3cr3t"}},
        {"proxy": "http://oslo:s3cr3t@proxy:3128", "proxy_ca": "x.pem"}, {"proxy_ca": "x.pem"},
        {"proxy": "http://proxy:3128", "pass": "s3cr3t"},
    ],
)  # fmt: skip
def test_a_wrong_proxy_is_an_error_that_keeps_its_secret(tmp_path, network: object) -> None:
    with pytest.raises(StudyError, match=r"site\.yaml:\d+: network") as found:
        settings(tmp_path, network)
    assert "s3cr3t" not in str(found.value)
