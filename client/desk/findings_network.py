"""Preflight of the way to the coordinator: name, way, TLS, who is let in, clocks. Sends nothing but questions."""

import base64
import contextlib
import email.utils
import http.client
import os
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.desk.findings import Check, ok, problem, skipped
from client.identity import LinkCredentials
from client.network.dial import Proxy, connect
from client.network.problems import LinkError, of_error, of_status, printable
from client.site import Network

# Flower takes a signature that is up to 5 s early and 305 s late; a second for the answer's coarse date.
AHEAD, BEHIND = 4.0, 240.0
RENEW_DAYS = 14
_SECONDS = 20.0
_DETAIL = 4096
ROUTE = "/v1/fleet/send-node-heartbeat"
ELSEWHERE = "/v1/control/list-runs"  # of Flower's API for operators, which must not be reachable


@dataclass(frozen=True)
class _Answer:
    status: int
    detail: str
    skew: float | None  # seconds by which this machine is ahead


def network(credentials: LinkCredentials, settings: Network) -> Iterator[Check]:
    """Check after check; later ones are left out where an earlier one shows that they cannot succeed."""
    proxy = Proxy(settings.proxy.get_secret_value(), settings.proxy_ca) if settings.proxy else None
    yield _proxy(proxy)
    host, port = _first_hop(credentials, proxy)
    for check in (_name(host, port), _way(host, port)):
        yield check
        if check.state == "problem":
            yield skipped("TLS", "needs the connection")
            return
    tls = _tls(credentials, proxy)
    yield tls
    if tls.state == "problem":
        return
    answer = _try(credentials, proxy, ROUTE)
    if isinstance(answer, LinkError):
        yield problem("let in", answer.problem.what, answer.problem.remedy)
        return
    yield _let_in(answer)
    yield _clock(answer)
    yield _elsewhere(_try(credentials, proxy, ELSEWHERE))
    yield _strangers(credentials, proxy)


def context_of(authority: Path, credentials: LinkCredentials | None) -> ssl.SSLContext:
    """TLS 1.3 that trusts `authority` alone; with the site's certificate, or as a stranger."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(authority)
    if credentials is not None:
        context.load_cert_chain(credentials.certificate, credentials.tls_key)
    return context


def _proxy(proxy: Proxy | None) -> Check:
    if proxy is not None:
        return ok("proxy", proxy.shown)
    named = [name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if os.environ.get(name)]
    if named:
        what = f"none in site.yaml; {named[0]} of the environment is not used"
        return ok("proxy", f"{what} (write network: {{proxy: ...}} if it is needed)")
    return ok("proxy", "none")


def _first_hop(credentials: LinkCredentials, proxy: Proxy | None) -> tuple[str, int]:
    if proxy is None:
        return credentials.host, credentials.port
    parts = urlsplit(proxy.url)
    return parts.hostname or "", parts.port or 0


def _name(host: str, port: int) -> Check:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return _failed("name", of_error(error, f"{host}:{port}"))
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return ok("name", f"{host} is {', '.join(addresses[:4])}")


def _way(host: str, port: int) -> Check:
    started = time.monotonic()
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except OSError as error:
        return _failed("way", of_error(error, f"{host}:{port}"))
    return ok("way", f"{host} port {port} answers after {(time.monotonic() - started) * 1000:.0f} ms")


def _tls(credentials: LinkCredentials, proxy: Proxy | None) -> Check:
    try:
        context = context_of(credentials.authority, credentials)
        raw: Any = connect(credentials.host, credentials.port, context, proxy)
    except LinkError as error:
        return _failed("TLS", error)
    except (OSError, ssl.SSLError) as error:
        return problem("TLS", f"the certificates of this site cannot be used ({error})", "Run: fedscan site join again")
    with contextlib.closing(raw):
        shown, version = raw.getpeercert(), raw.version()
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)
    days = (ends - datetime.now(UTC)).days
    said = f"{version}; the coordinator's certificate is of its own authority and valid for {days} days"
    if days < RENEW_DAYS:
        return problem("TLS", said, "Tell the coordinator: fedscan server renew")
    return ok("TLS", said)


def _try(credentials: LinkCredentials, proxy: Proxy | None, path: str, stranger: bool = False) -> "_Answer | LinkError":
    """Ask one question, on a connection of its own; as who has no certificate if `stranger`."""
    where = f"{credentials.host}:{credentials.port}"
    context = context_of(credentials.authority, None if stranger else credentials)
    public = credentials.node_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # A process that was never activated: the running link of this site does not notice.
    headers = {"flwr-public-key": base64.b64encode(public).decode(), "fedscan-instance": secrets.token_hex(16)}
    try:
        raw = connect(credentials.host, credentials.port, context, proxy)
    except LinkError as error:
        return error
    with contextlib.closing(raw):
        raw.settimeout(_SECONDS)
        asking = http.client.HTTPConnection(credentials.host, credentials.port)
        asking.sock = cast(socket.socket, raw)
        try:
            begun = time.time()
            asking.request("POST", path, b"", headers)
            answer = asking.getresponse()
            middle = (begun + time.time()) / 2
            detail = printable(answer.read(_DETAIL).decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return of_error(error, where)
    skew = None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        # The date is cut to whole seconds.
        skew = middle - email.utils.parsedate_to_datetime(answer.getheader("Date", "")).timestamp() - 0.5
    return _Answer(answer.status, detail, skew)


def _let_in(answer: _Answer) -> Check:
    # The gate asks last whether the process was activated: certificate, enrolment and node key are right.
    if answer.status == 409:
        return ok("let in", "the coordinator knows this site's certificate and node key")
    if answer.status == 200:
        return problem("let in", "an unknown process is let in", "Tell the coordinator: its gate does not work")
    return _failed("let in", of_status(answer.status, answer.detail))


def _clock(answer: _Answer) -> Check:
    if answer.skew is None:
        return problem(
            "clock", "the coordinator's answer has no date", "Tell the coordinator; compare the clocks by hand"
        )
    said = f"{abs(answer.skew):.1f} s {'ahead of' if answer.skew > 0 else 'behind'} the coordinator's"
    if answer.skew > AHEAD or answer.skew < -BEHIND:
        return problem("clock", said, "Set this machine's clock (NTP); if it is right, tell the coordinator")
    return ok("clock", f"agrees with the coordinator's within {max(1.0, abs(answer.skew)):.0f} s")


def _elsewhere(answer: "_Answer | LinkError") -> Check:
    if isinstance(answer, LinkError):
        return _failed("other routes", answer)
    if answer.status == 404:
        return ok("other routes", "closed: the coordinator offers sites nothing but tasks")
    what = f"the coordinator answers a route of Flower's operators (HTTP {answer.status})"
    return problem("other routes", what, "Tell the coordinator: this is not fedscan's gate")


def _strangers(credentials: LinkCredentials, proxy: Proxy | None) -> Check:
    answer = _try(credentials, proxy, ROUTE, stranger=True)
    if isinstance(answer, LinkError):
        return ok("strangers", "turned away: without a certificate of the federation there is no answer")
    what = f"who has no certificate gets an answer, too (HTTP {answer.status})"
    return problem("strangers", what, "Tell the coordinator: something before it ends TLS, which must reach it")


def _failed(name: str, error: LinkError) -> Check:
    return problem(name, error.problem.what, error.problem.remedy)
