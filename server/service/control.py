"""How the operator's commands reach the running server: the service `fedscan.Control` on a Unix socket of its owner.

The records that cross, and the commands' end. The server's end is server/service/control_service.py.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Self

import grpc
from pydantic import AwareDatetime, Field

from common import errors
from common.errors import FedscanError, SignatureError, StudyError
from common.manifests import SignedStudy
from common.records import AnyRecord, Record, RecordError, RunName
from common.rpc import Empty, RpcClient
from common.section import Name
from server.enrolment.desk import Standing
from server.service.queue import Progress, RunRecord

SERVICE = "fedscan.Control"
SOCKET = "control.sock"
MODE = 0o600
MAX_REFUSALS = 50
_TIMEOUT = 30.0  # seconds in which the server must answer; a report may take longer
_REPORT = 600.0
_CLASSES = {e.code: e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, FedscanError)}


class StartRun(Record):
    """Put a signed study into the queue; without `sites` all that are enrolled take part."""

    signed: SignedStudy
    sites: tuple[Name, ...] | None = Field(None, min_length=1, max_length=1000)


class RunRef(Record):
    """A run by its name."""

    run: RunName


class RunState(Record):
    """A run and how far it came."""

    record: RunRecord
    progress: Progress


class Runs(Record):
    """All runs in the order of the queue, and messages about those that cannot be read."""

    runs: tuple[RunState, ...]
    damaged: tuple[str, ...]


class Seen(Record):
    """What a watcher is told: the run's record whenever it changed, and each line of its events."""

    record: RunRecord | None = None
    event: str | None = None


class Report(Record):
    """A written report: its folder within the coordinator's home, and its files within that."""

    folder: str
    files: tuple[str, ...]


class SiteState(Record):
    """An enrolled site: `standing` is enrolled, renew, expired or revoked."""

    name: Name
    standing: Standing
    connected: bool
    expires: AwareDatetime


class Turned(Record):
    """Refusals of one reason: who was turned away where and why, how often, and when last."""

    who: str
    where: str
    why: str
    times: int
    last: AwareDatetime


class ServerStatus(Record):
    """The server at this moment.

    Attributes:
        version: Of fedscan.
        pid: Its process.
        since: When it was started.
        hosts: Its names, the first of which sites know.
        listen: The address it listens on.
        port: Its port.
        health_http: Loopback port of /health.
        health_grpc: Loopback port of grpc.health.v1.
        well: Whether it can serve its sites and work on runs.
        certificate_ends: The end of the certificate that it uses.
        sites: All that were ever enrolled.
        refusals: How many there were since the start.
        turned: The last of them, by reason.
        open: The run that goes on.
        queued: Those that wait, in order.
        damaged: Files of sites and runs that cannot be read.
    """

    version: str
    pid: int
    since: AwareDatetime
    hosts: tuple[str, ...]
    listen: str
    port: int
    health_http: int
    health_grpc: int
    well: bool
    certificate_ends: AwareDatetime
    sites: tuple[SiteState, ...]
    refusals: int
    turned: tuple[Turned, ...]
    open: RunState | None
    queued: tuple[RunName, ...]
    damaged: tuple[str, ...]


class NoServerError(FedscanError):
    """No server of this home runs, or its socket may not be used."""


class ControlClient:
    """The commands' end, as a context manager. What the server refuses is raised as the error that it raised there.

    Args:
        home: The coordinator's home.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._socket = home / SOCKET
        self._client = RpcClient(self._socket, SERVICE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def status(self, timeout: float = _TIMEOUT) -> ServerStatus:
        """The server at this moment."""
        return self._call("Status", Empty(), ServerStatus, timeout)

    def stop(self) -> None:
        """Let the server end; it is not ended yet on return."""
        self._call("Stop", Empty(), Empty)

    def start(self, signed: SignedStudy, sites: tuple[str, ...] | None) -> RunRecord:
        """Put a run into the queue."""
        return self._call("Start", StartRun(signed=signed, sites=sites), RunRecord)

    def runs(self) -> Runs:
        """All runs."""
        return self._call("List", Empty(), Runs)

    def abort(self, run: str) -> RunRecord:
        """End a run that waits or goes on."""
        return self._call("Abort", _ref(run), RunRecord)

    def resume(self, run: str) -> RunRecord:
        """Take up a run that failed or was aborted."""
        return self._call("Resume", _ref(run), RunRecord)

    def report(self, run: str) -> Report:
        """Write the report of a run."""
        return self._call("Report", _ref(run), Report, _REPORT)

    def watch(self, run: str) -> Iterator[Seen]:
        """A run from its beginning, until it has ended."""
        try:
            yield from self._client.stream("Watch", _ref(run), Seen)
        except (grpc.RpcError, RecordError) as error:
            self._raise(error)

    def _call(self, method: str, request: Record, answer: type[AnyRecord], timeout: float = _TIMEOUT) -> AnyRecord:
        try:
            return self._client.call(method, request, answer, timeout)
        except (grpc.RpcError, RecordError) as error:
            self._raise(error)

    def _raise(self, error: Exception) -> NoReturn:
        if not isinstance(error, grpc.RpcError):
            raise FedscanError(f"the server's answer {error}; is it of another version? Restart it") from None
        status, details = error.code(), error.details() or ""
        if status == grpc.StatusCode.FAILED_PRECONDITION:
            raise untold(details) from None
        if status == grpc.StatusCode.UNAVAILABLE:
            raise NoServerError(self._gone()) from None
        raise FedscanError(f"the server did not answer as it should ({status.name}): {details}") from None

    def _gone(self) -> str:
        if not (self._home / "coordinator.json").exists():
            return f"{self._home} holds no coordinator; name its folder with --home (or FEDSCAN_SERVER_HOME)"
        if not os.access(self._home, os.X_OK) or (self._socket.exists() and not os.access(self._socket, os.W_OK)):
            return f"{self._socket} belongs to another user: only the one whom the server runs as may use it"
        return f"no server runs in {self._home}; start it with: fedscan server start --home {self._home}"


def told(error: FedscanError) -> str:
    """An error as it crosses."""
    return json.dumps({"code": error.code, "message": str(error)}, ensure_ascii=True)


def untold(details: str) -> FedscanError:
    """The error that was `told`."""
    try:
        found = json.loads(details)
        kind, message = _CLASSES.get(found["code"], FedscanError), str(found["message"])
    except (ValueError, KeyError, TypeError):
        return FedscanError(f"the server refused: {details}")
    return FedscanError(message) if issubclass(kind, SignatureError) else kind(message)


def _ref(run: str) -> RunRef:
    try:
        return RunRef(run=run)
    except ValueError:
        raise StudyError(f"{run!r} is not the name of a run; `fedscan run list` shows the runs") from None
