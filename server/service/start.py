"""The coordinator's one process: link, runs and control, started and stopped as one."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import FedscanError
from common.lock import alone, held
from common.log import Form, keep_short, silence_handlers
from server.enrolment.identity import Coordinator
from server.service.control import ControlClient, NoServerError, ServerStatus

if TYPE_CHECKING:
    from server.service.coordinator import ServerLink
    from server.service.worker import Worker

log = logging.getLogger("fedscan.server")

LOCK, LOG = "server.lock", "server.log"
START = 120.0  # seconds in which a server in the background must answer
END = 40.0  # seconds in which the open run must leave its state; what it cannot write then, the next start asks again
_LOOK = 0.5


@dataclass(frozen=True)
class ServerOptions:
    """How the server of a home is started.

    Attributes:
        home: The coordinator's home.
        listen: The address to listen on.
        port: The port; None for the identity's, 0 for a free one.
        health_http: Loopback port of /health, 0 for a free one.
        health_grpc: Loopback port of grpc.health.v1, 0 for a free one.
    """

    home: Path
    listen: str = "0.0.0.0"  # noqa: S104 - hospitals come from outside, with certificates
    port: int | None = None
    health_http: int = 0
    health_grpc: int = 0


def serve(options: ServerOptions) -> None:
    """Serve until SIGTERM, SIGINT or `fedscan server stop`.

    Raises:
        IdentityError: The home holds no coordinator, or one whose keys do not fit together.
        FedscanError: Another server serves this home, an address cannot be had, or a part of this one died.
    """
    coordinator = Coordinator(options.home)
    coordinator.check()
    with alone(options.home / LOCK, _busy(options.home)):
        os.umask(0o077)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        _serve(options, coordinator, stop)


def _serve(options: ServerOptions, coordinator: Coordinator, stop: threading.Event) -> None:
    from server.port.memory import give_back

    give_back()
    from server.enrolment.site_file import Enrolled
    from server.report.run import write_run_report
    from server.service.control_service import ControlService, Parts
    from server.service.coordinator import LinkConfig, ServerLink
    from server.service.courier import Courier
    from server.service.deployed import run_study, signed_study
    from server.service.queue import Queue, RunRecord
    from server.service.worker import Worker

    silence_handlers()
    home = options.home
    enrolled = Enrolled(coordinator.enrolment_folder)
    queue = Queue(home / "runs", coordinator)
    config = LinkConfig(
        coordinator.tls_certificate_path, coordinator.tls_key_path, coordinator.authority_path, home / "inbox",
        options.listen, coordinator.card.port if options.port is None else options.port,
        options.health_http, options.health_grpc,
    )  # fmt: skip

    def work(record: RunRecord, leave: threading.Event) -> None:
        folder, signed = queue.folder(record.name), queue.signed(record.name)
        run_study(link, coordinator, enrolled, folder, signed, record.sites, leave)

    def done(record: RunRecord) -> None:
        try:
            study = signed_study(coordinator, queue.signed(record.name))
            write_run_report(queue.folder(record.name), study, record.status)
        except FedscanError as error:
            # The run itself is whole; its report can be written at any time.
            log.error("the report of run %s could not be written: %s", record.name, error)

    for message in (*enrolled.damaged, *queue.damaged):
        log.error("%s", message)
    with ServerLink(config, enrolled) as link:
        worker = Worker(queue, work, done)
        courier = Courier(queue, coordinator, enrolled, link.fleet)
        with ControlService(Parts(coordinator, enrolled, link, options.listen, queue, worker, stop)).serve():
            worker.start()
            courier.start()
            log.info("serving on %s port %d, health on port %d", options.listen, link.port, link.health.http_port)
            try:
                _until(stop, link, worker, coordinator)
            finally:
                courier.end(END)
                if not worker.end(END):
                    log.warning("the open run did not leave in %g s; the next start goes on from its last state", END)
    log.info("ended")


def _until(stop: threading.Event, link: "ServerLink", worker: "Worker", coordinator: Coordinator) -> None:
    """Wait for `stop`; use a renewed certificate as soon as it is there."""
    certificate = coordinator.tls_certificate_path
    used = _mark(certificate)
    while not stop.wait(_LOOK):
        if not (link.well() and worker.well()):
            raise FedscanError("a part of the server died; the log says why. Start it again: nothing is lost")
        keep_short(coordinator.home / LOG)
        found = _mark(certificate)
        if found is not None and found != used:
            used = found
            try:
                link.renew()
                log.info("the server's new certificate is used from the next connection on")
            except FedscanError as error:
                log.error("%s", error)


def _mark(path: Path) -> tuple[int, int] | None:
    """Another one for another file of this name; None while there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def launch(options: ServerOptions, form: Form) -> ServerStatus:
    """Start a server in the background, its log in the home, and wait until it answers; raises FedscanError."""
    home = options.home
    Coordinator(home)
    if held(home / LOCK):
        raise _busy(home)
    path = home / LOG
    command = [
        # -P: no folder that the command happens to be called from may stand in for our packages.
        sys.executable, "-P", "-c", "from common.cli import main; main()", "server", "start", "--foreground",
        "--home", str(home), "--listen", options.listen, "--log", form,
        "--health-http", str(options.health_http), "--health-grpc", str(options.health_grpc),
        *([] if options.port is None else ["--port", str(options.port)]),
    ]  # fmt: skip
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        begin = os.fstat(file.fileno()).st_size
        child = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    end = time.monotonic() + START
    while child.poll() is None and time.monotonic() < end:
        try:
            with ControlClient(home) as client:
                status = client.status(timeout=5)
            if status.pid == child.pid:
                return status
        except FedscanError:
            time.sleep(0.1)
    child.terminate()
    raise FedscanError(f"the server did not start: {_said(path, begin)} ({path} says more)")


def _said(path: Path, begin: int) -> str:
    """What the last process wrote at its end."""
    with path.open("rb") as file:
        file.seek(begin)
        lines = file.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it did not answer in time"


def stop(home: Path) -> None:
    """End the server of `home` and wait until it has ended; raises NoServerError when none runs."""
    Coordinator(home)
    lock = home / LOCK
    if not held(lock):
        raise NoServerError(f"no server runs in {home}")
    try:
        with ControlClient(home) as client:
            client.stop()
    except NoServerError:
        # It is starting, or ending, or hangs: a signal says the same.
        number = lock.read_text(encoding="ascii").strip()
        if number.isdigit():
            os.kill(int(number), signal.SIGTERM)
    end = time.monotonic() + END + 30
    while held(lock):
        if time.monotonic() > end:
            raise FedscanError(f"the server of {home} does not end; its process id is in {lock}")
        time.sleep(0.1)


def _busy(home: Path) -> FedscanError:
    return FedscanError(f"a server of {home} runs already; see: fedscan server status --home {home}")
