"""The server's end of the operator's commands: what each of them does."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import grpc

from common.errors import FedscanError, SignatureError, StudyError
from common.manifests import SignedStudy, verified_order, verified_study
from common.rpc import Call, Empty, RpcServer
from common.signing import key_text
from common.study import Study
from server.enrolment.desk import standing
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled
from server.report.run import write_run_report
from server.service.control import (
    MAX_REFUSALS,
    MODE,
    SERVICE,
    SOCKET,
    Report,
    RunRef,
    Runs,
    RunState,
    Seen,
    ServerStatus,
    SiteState,
    StartRun,
    Turned,
    told,
)
from server.service.coordinator import ServerLink
from server.service.queue import ENDED, Queue, RunRecord, progress
from server.service.starts import TO_START, kept_start
from server.service.worker import Worker

LOOK = 0.2  # seconds between two looks at the events of a run that is watched
WATCHERS = 8  # of 16 calls at a time: there is always room for a command


@dataclass(frozen=True)
class Parts:
    """What the commands act on."""

    coordinator: Coordinator
    enrolled: Enrolled
    link: ServerLink
    listen: str
    queue: Queue
    worker: Worker
    stop: threading.Event


class ControlService:
    """The methods of `fedscan.Control`.

    Args:
        parts: What they act on.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._since = datetime.now(UTC)
        self._watchers = threading.BoundedSemaphore(WATCHERS)

    def serve(self) -> RpcServer:
        """The service on the socket in the coordinator's home, for its owner only."""
        calls = {
            "Status": Call(Empty, lambda _, context: self.status()),
            "Stop": Call(Empty, lambda _, context: self.stop()),
            "Start": Call(StartRun, lambda request, context: self.start(request)),
            "List": Call(Empty, lambda _, context: self.runs()),
            "Abort": Call(RunRef, lambda request, context: self._parts.worker.abort(request.run)),
            "Resume": Call(RunRef, lambda request, context: self._parts.queue.resume(request.run)),
            "Report": Call(RunRef, lambda request, context: self.report(request.run)),
            "Watch": Call(RunRef, self.watch, stream=True),
        }
        return RpcServer(self._parts.coordinator.home / SOCKET, SERVICE, calls, MODE, tell=told)

    def status(self) -> ServerStatus:
        """The server at this moment."""
        p, now = self._parts, datetime.now(UTC)
        online = p.link.fleet.online()
        sites = tuple(
            SiteState(name=s.name, standing=standing(s, now), connected=s.name in online, expires=s.expires)
            for s in p.enrolled.sites()
        )
        turned = tuple(
            Turned(who=r.who, where=r.where, why=r.why, times=r.times, last=r.last)
            for r in p.link.refusals.recent(MAX_REFUSALS)
        )
        runs = p.queue.all()
        open_run = next((self._state(r) for r in runs if r.status == "running"), None)
        return ServerStatus(
            version=version("fedscan"), pid=os.getpid(), since=self._since,
            hosts=tuple(Coordinator(p.coordinator.home).card.hosts), listen=p.listen, port=p.link.port,
            health_http=p.link.health.http_port, health_grpc=p.link.health.rpc_port,
            well=p.link.well() and p.worker.well(),
            certificate_ends=p.coordinator.server_certificate().not_valid_after_utc,
            sites=sites, refusals=p.link.refusals.count, turned=turned, open=open_run,
            queued=tuple(r.name for r in runs if r.status == "queued"),
            damaged=(*p.enrolled.damaged, *p.queue.damaged),
        )  # fmt: skip

    def stop(self) -> Empty:
        """Let the server end."""
        self._parts.stop.set()
        return Empty()

    def start(self, request: StartRun) -> RunRecord:
        """Put a signed study into the queue, when it is one that this coordinator can run now."""
        study = self._verified(request.signed)
        self._check_sites(request.sites)
        if study.start is not None and kept_start(self._parts.coordinator.home, study) is None:
            raise StudyError(f"the weights with which study {study.name} begins are not here; {TO_START}")
        return self._parts.queue.add(request.signed, study.name, study.rounds.number, request.sites)

    def runs(self) -> Runs:
        """All runs."""
        queue = self._parts.queue
        return Runs(runs=tuple(self._state(r) for r in queue.all()), damaged=tuple(queue.damaged))

    def report(self, run: str) -> Report:
        """Write the report of a run into its folder."""
        queue = self._parts.queue
        record, folder = queue.get(run), queue.folder(run)
        files = write_run_report(folder, self._study(run), record.status, record.why)
        return Report(folder=str(folder.relative_to(self._parts.coordinator.home)), files=tuple(files))

    def watch(self, request: RunRef, context: grpc.ServicerContext) -> Iterator[Seen]:
        """A run from its first event on, until it has ended or the watcher is gone."""
        if not self._watchers.acquire(blocking=False):
            raise FedscanError(f"{WATCHERS} commands watch runs already; end one of them")
        try:
            yield from self._watch(request.run, context.is_active)
        finally:
            self._watchers.release()

    def _watch(self, run: str, wanted: Callable[[], bool]) -> Iterator[Seen]:
        queue, lines = self._parts.queue, Lines(self._parts.queue.folder(run) / "events.jsonl")
        last: RunRecord | None = None
        while wanted() and not self._parts.stop.is_set():
            # The record first: what a run that has ended wrote is all there when its record says so.
            record = queue.get(run)
            yield from (Seen(event=line) for line in lines.new())
            if record != last:
                last = record
                yield Seen(record=record)
            if record.status in ENDED:
                return
            self._parts.stop.wait(LOOK)

    def _state(self, record: RunRecord) -> RunState:
        return RunState(record=record, progress=progress(self._parts.queue.folder(record.name)))

    def _study(self, run: str) -> Study:
        coordinator = self._parts.coordinator
        return verified_study(self._parts.queue.signed(run).study, coordinator.signing_key, coordinator.id)

    def _verified(self, signed: SignedStudy) -> Study:
        """The study; raises StudyError when it cannot run here, or not now."""
        c = self._parts.coordinator
        try:
            study = verified_study(signed.study, c.signing_key, c.id)
            order = verified_order(signed.order, c.signing_key, c.id)
        except SignatureError as error:
            raise StudyError(f"the signed study is refused: {error}; sign it with this coordinator's keys") from None
        if order.study != study.digest():
            raise StudyError("the signed study is refused: its order is for another study; sign it again")
        if order.round_key != key_text(c.round_key().public_key()):
            raise StudyError(f"the order of run {order.run} names another online key than this server's; sign it again")
        if order.valid_until <= datetime.now(UTC):
            raise StudyError(
                f"the order of run {order.run} ended {order.valid_until:%Y-%m-%d %H:%M} UTC; sign it again"
            )
        return study

    def _check_sites(self, sites: tuple[str, ...] | None) -> None:
        there = {s.name for s in self._parts.enrolled.sites() if not s.revoked}
        if not there:
            raise StudyError("no site is enrolled; begin with: fedscan server site add REQUEST")
        unknown = [s for s in sites or () if s not in there]
        if unknown:
            raise StudyError(f"not enrolled: {', '.join(unknown)}; enrolled are {', '.join(sorted(there))}")
        if sites is not None and len(set(sites)) != len(sites):
            raise StudyError("a site is named twice")


class Lines:
    """The whole lines of a file that grows, each once.

    Args:
        path: The file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> Iterator[str]:
        """Those that came since the last time; a line that is still being written is left for the next."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._at += len(line)
                    yield line.decode("utf-8").rstrip("\n")
        except FileNotFoundError:
            return
