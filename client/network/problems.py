"""What can go wrong between a site and its coordinator, in words for the people who look after the site's network.

Every failure gets a code, what was seen, and what helps. Nothing here is final: the link tries again whatever it was.
"""

import http.client
import random
import socket
import ssl
from dataclasses import dataclass

from common.errors import FedscanError

_FIRST, _MOST = 0.5, 30.0  # seconds between two tries
_SAID = 200  # characters of the other side's words that are repeated


@dataclass(frozen=True)
class Problem:
    """One kind of failure.

    Attributes:
        code: A word for scripts.
        what: What was seen.
        remedy: What helps, and who can do it.
    """

    code: str
    what: str
    remedy: str


class LinkError(FedscanError):
    """Something between the site and its coordinator failed.

    Attributes:
        problem: What it was.
        status: The HTTP status, where the coordinator gave one; 0 otherwise.
        wait: Seconds that the coordinator asked to wait.
    """

    def __init__(self, problem: Problem, status: int = 0, wait: float = 0.0) -> None:
        super().__init__(f"{problem.what}. {problem.remedy}")
        self.problem = problem
        self.status = status
        self.wait = wait


_TRY = "The link tries again by itself"
_FIREWALL = (
    "Ask the network's people to let this machine reach that address and port, also for connections that last long"
)
_INSPECTION = (
    "If a firewall opens TLS connections here, ask for an exception for the coordinator: nobody between the two can "
    "take part. Otherwise ask the coordinator whether its authority changed (then: fedscan site join with a new file)"
)
_CLOCK = "Set this machine's clock (NTP): it may be 5 s ahead and 5 minutes behind, not more"

_STATUS: dict[int, tuple[str, str, str]] = {
    400: ("form", "the coordinator cannot read what this site sends", "Compare the versions of fedscan on both sides"),
    401: ("clock", "the coordinator does not accept this site's signature", _CLOCK),
    403: (
        "forbidden",
        "the coordinator does not let this site in",
        "Ask the coordinator whether the site was revoked or its certificate has expired; a new certificate is "
        "installed with fedscan site join, without a stop",
    ),
    404: (
        "address",
        "what answers there is not a fedscan coordinator",
        "Compare host and port in federation.json with the coordinator's",
    ),
    408: ("slow", "the request did not arrive in time", "The line is slow or was cut. " + _TRY),
    409: ("again", "the coordinator does not know this process (any more)", "It has started again. " + _TRY),
    410: ("over", "the task is not open any more", "Nothing to do: the coordinator asks again if it still needs it"),
    412: (
        "two",
        "the coordinator sees another process of this site as connected",
        "After a crash it takes up to 20 s until the former process counts as gone. If this lasts, the site runs "
        "elsewhere with the same keys: stop one of the two",
    ),
    413: ("large", "the coordinator takes no more bytes for this task", "Ask the coordinator to look into its log"),
    429: ("rate", "the coordinator asks for fewer requests", _TRY),
}
_ALERTS = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN",
           "CERTIFICATE_REVOKED", "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED")  # fmt: skip


def of_status(status: int, detail: str = "", skew: float | None = None, wait: float = 0.0) -> LinkError:
    """The error for an answer that is not 200.

    Args:
        status: HTTP status.
        detail: What the coordinator wrote.
        skew: Seconds by which this machine's clock is ahead of the coordinator's, where that is known.
        wait: Seconds that it asked to wait.
    """
    if 300 <= status < 400:
        what = f"an answer points elsewhere (HTTP {status}), which is never followed"
        code, remedy = "redirect", _FIREWALL
    elif status in _STATUS:
        code, what, remedy = _STATUS[status]
    elif status >= 500:
        code, what, remedy = "coordinator", f"the coordinator has trouble (HTTP {status})", _TRY
    else:
        what = f"the coordinator answers with HTTP {status}"
        code, remedy = "status", "Compare the versions of fedscan on both sides"
    if status == 401 and skew is not None and abs(skew) < 4:
        code, remedy = "signature", "The clocks agree, so ask the coordinator whether it knows this site's node key"
    elif status == 401 and skew is not None:
        what = f"{what}: this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    said = printable(detail)
    return LinkError(Problem(code, f"{what}, saying: {said}" if said else what, remedy), status, wait)


def of_error(error: Exception, where: str) -> LinkError:
    """The error for what the network, TLS or HTTP raised.

    Args:
        error: What was raised.
        where: To whom the connection went, for people.
    """
    if isinstance(error, LinkError):
        return error
    return LinkError(_tls(error, where) if isinstance(error, ssl.SSLError) else _network(error, where))


def _network(error: Exception, where: str) -> Problem:
    if isinstance(error, socket.gaierror):
        return Problem("dns", f"the name of {where} is not known here", "Ask for the name to be resolved on this "
                       "machine (DNS), or for a proxy to be set in site.yaml, network.proxy")  # fmt: skip
    if isinstance(error, TimeoutError):
        return Problem("timeout", f"{where} does not answer", _FIREWALL)
    if isinstance(error, ConnectionRefusedError):
        remedy = f"The coordinator is down, or a firewall says so. {_TRY}"
        return Problem("refused", f"nothing listens at {where}", remedy)
    if isinstance(error, http.client.HTTPException):
        return Problem("answer", f"{where} does not answer in HTTP ({type(error).__name__})", _FIREWALL)
    if isinstance(error, ConnectionError | EOFError):
        return Problem("cut", f"the connection to {where} was cut", _FIREWALL)
    if isinstance(error, OSError):
        return Problem("network", f"no way to {where}: {error.strerror or type(error).__name__}", _FIREWALL)
    return Problem("answer", f"{where} answers what cannot be read ({type(error).__name__})", "Compare the versions of "
                   "fedscan on both sides")  # fmt: skip


def _tls(error: ssl.SSLError, where: str) -> Problem:
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        about = f"{where} shows a certificate that does not count ({error.verify_message})"
        dates = error.verify_code in (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
        return Problem("tls-server", about, _CLOCK if dates else _INSPECTION)
    if any(alert in reason for alert in _ALERTS):
        return Problem("tls-client", f"{where} does not take this site's certificate ({reason})", _STATUS[403][2])
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Problem("cut", f"the connection to {where} was cut", _FIREWALL)
    if "VERSION" in reason:
        return Problem("tls-version", f"{where} does not speak TLS 1.3 ({reason})", _INSPECTION)
    return Problem("tls", f"no TLS with {where} ({reason or type(error).__name__})", _INSPECTION)


def printable(text: str) -> str:
    """The other side's words, fit for a log: one short line without control characters."""
    return "".join(c for c in text if c.isprintable())[:_SAID].strip()


class Backoff:
    """Growing pauses between tries, spread so that many sites do not return at the same moment.

    Args:
        most: Seconds above which no pause grows.
    """

    def __init__(self, most: float = _MOST) -> None:
        self._most = most
        self._next = _FIRST

    def pause(self, at_least: float = 0.0) -> float:
        """Seconds to wait now."""
        pause = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - spreads, keeps no secret
        self._next = min(2 * self._next, self._most)
        return max(pause, min(at_least, self._most))

    def calm(self) -> None:
        """It works again."""
        self._next = _FIRST
