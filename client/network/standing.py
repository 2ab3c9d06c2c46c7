"""How the link stands: for the log, once per change, and for `fedscan site status`, in HOME/shared/link.json."""

import json
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from client.network.connection import Traffic
from client.network.problems import Problem

log = logging.getLogger("fedscan.link")

Phase = Literal["starting", "connecting", "idle", "download", "work", "upload", "stopped"]
_EVERY = 5.0  # seconds between two writings when nothing changes but the last contact
_AGAIN = 60.0  # seconds after which a problem that lasts is logged again; doubles each time, up to:
_AGAIN_MOST = 3600.0


@dataclass(frozen=True)
class _Lasting:
    """A problem, as it lasts."""

    problem: Problem
    since: float  # of the link's clock
    wall: str
    tries: int = 1
    said: float = 0.0
    pause: float = _AGAIN


@dataclass
class Standing:
    """What is told.

    Attributes:
        path: The file for `fedscan site status`; nothing secret goes there.
        traffic: Bytes in and out.
        phase: What the link is at.
        coordinator: Where it connects to.
        task: Name of the open task.
        paused: Whether this process has let go of everything, because the people of the site said so.
        node: Whether the coordinator counts this process as connected, and since when.
    """

    path: Path
    traffic: Traffic
    phase: Phase = "starting"
    coordinator: str = ""
    task: str | None = None
    paused: bool = False
    connected: str | None = None
    contact: str | None = None
    _started: str = field(default_factory=lambda: _wall())
    _problems: dict[str, _Lasting] = field(default_factory=dict)
    _last: dict[str, Any] | None = None
    _written: float = -_EVERY
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, phase: Phase) -> None:
        """The link is at `phase` now."""
        if phase != self.phase:
            self.phase = phase
            self.write()

    def heard(self) -> None:
        """The coordinator answered."""
        self.contact = _wall()
        if self.connected is None:
            self.connected = self.contact
        if time.monotonic() - self._written > _EVERY:
            self.write()

    def failed(self, of: str, problem: Problem, now: float) -> None:
        """Something does not work; said at once when it is new, then ever more rarely.

        Args:
            of: Whose trouble it is: coordinator or trainer.
            problem: What it is.
            now: Seconds of the link's clock.
        """
        with self._lock:
            known = self._problems.get(of)
            new = known is None or known.problem.code != problem.code
            if known is None or new:
                lasting = _Lasting(problem, now, _wall(), said=now)
            else:
                lasting = replace(known, problem=problem, tries=known.tries + 1)
            if not new and now - lasting.said >= lasting.pause:
                lasting = replace(lasting, said=now, pause=min(2 * lasting.pause, _AGAIN_MOST))
                spent = f"for {(now - lasting.since) / 60:.0f} min, {lasting.tries} tries"
                log.warning("still [%s] %s (%s). %s", problem.code, problem.what, spent, problem.remedy)
            elif new:
                log.warning("[%s] %s. %s", problem.code, problem.what, problem.remedy)
            self._problems[of] = lasting
            self._last = {**asdict(problem), "since": lasting.wall, "tries": lasting.tries}
        if of == "coordinator":
            self.connected = None
        self.write()

    def fine(self, of: str, now: float) -> None:
        """It works again."""
        with self._lock:
            over = self._problems.pop(of, None)
        if over is not None:
            log.info("the %s answers again after %.0f s and %d tries", of, now - over.since, over.tries)
            self.write()

    def write(self) -> None:
        """Write the file, whole or not at all; that it cannot be written stops nothing."""
        with self._lock:
            self._written = time.monotonic()
            now = {of: {**asdict(p.problem), "since": p.wall, "tries": p.tries} for of, p in self._problems.items()}
            about = {
                "pid": os.getpid(), "started": self._started, "phase": self.phase, "coordinator": self.coordinator,
                "connected_since": self.connected, "last_contact": self.contact, "problems": now,
                "last_problem": self._last, "task": self.task, "paused": self.paused,
                "bytes_received": self.traffic.received, "bytes_sent": self.traffic.sent, "written": _wall(),
            }  # fmt: skip
            part = self.path.with_name(f".{self.path.name}.part")
            with suppress(OSError):
                part.unlink(missing_ok=True)
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(about, file)
                os.replace(part, self.path)


def _wall() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
