"""Works on the queued runs, one at a time, in a thread of the server's process."""

import logging
import threading
from collections.abc import Callable

from common.errors import FedscanError, StorageError
from server.exchange import Stopped
from server.service.queue import Queue, RunRecord

log = logging.getLogger("fedscan.runs")

_AGAIN = 5  # seconds until a full disk is tried again

Work = Callable[[RunRecord, threading.Event], object]


class Worker:
    """The thread.

    Args:
        queue: The runs.
        work: Runs one, or goes on with it. Raises Stopped once its event is set, FedscanError when the run failed.
        done: Called with each run that finished.
    """

    def __init__(self, queue: Queue, work: Work, done: Callable[[RunRecord], object]) -> None:
        self._queue = queue
        self._work = work
        self._done = done
        self._ending = threading.Event()
        self._open: tuple[str, threading.Event] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="runs", daemon=True)

    def start(self) -> None:
        """Begin with the run that an earlier process had begun, or with the first of the queue."""
        self._thread.start()

    def well(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def abort(self, name: str) -> RunRecord:
        """End a run that goes on or waits; raises StudyError for any other."""
        record = self._queue.abort(name)
        with self._lock:
            if self._open is not None and self._open[0] == name:
                self._open[1].set()
        return record

    def end(self, timeout: float) -> bool:
        """Leave the open run as it stands on disk, for the next process; whether that was done in `timeout` seconds."""
        with self._lock:
            self._ending.set()
            if self._open is not None:
                self._open[1].set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (record := self._noted(lambda: self._queue.take(self._ending))) is not None:
            leave = threading.Event()
            with self._lock:
                self._open = (record.name, leave)
                if self._ending.is_set():
                    return
            if self._queue.get(record.name).status == "running":  # it was not aborted meanwhile
                self._one(record, leave)
            with self._lock:
                self._open = None

    def _one(self, record: RunRecord, leave: threading.Event) -> None:
        name = record.name
        log.info("run %s goes on", name)
        try:
            self._work(record, leave)
        except Stopped:
            log.info("run %s is left", name)
        except FedscanError as error:
            log.error("run %s failed: %s", name, error)
            self._fail(name, str(error))
        except Exception as error:
            log.exception("run %s failed", name)
            self._fail(name, f"{type(error).__name__}, which nobody expected; the server's log says more")
        else:
            log.info("run %s is finished", name)
            if (finished := self._noted(lambda: self._queue.mark(name, "finished"))) is not None:
                self._done(finished)

    def _fail(self, name: str, why: str) -> None:
        self._noted(lambda: self._queue.mark(name, "failed", why, only="running"))

    def _noted(self, note: Callable[[], RunRecord | None]) -> RunRecord | None:
        """What `note` returns; while the disk is full it is tried again, for no other run could go on either."""
        while True:
            try:
                return note()
            except StorageError as error:
                log.error("%s", error)
                if self._ending.wait(_AGAIN):
                    return None
