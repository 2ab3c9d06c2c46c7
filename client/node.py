"""Starts a site's two processes, watches them, starts them again when they die, and stops them in order.

One node per home: it holds the lock HOME/node.lock, in which its process id stands, and says in HOME/node.json what it
sees. The trainer gets no network where the system can take it away. In containers and under systemd each process is a
service of its own, from which more is taken, and there is no node.
"""

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from pydantic import AwareDatetime, Field

from common.disk import write_whole
from common.errors import FedscanError
from common.lock import alone, held
from common.log import keep_short
from common.records import Record, RecordError, read_record
from common.section import Name

log = logging.getLogger("fedscan.node")

LOCK, STATE, LOG = "node.lock", "node.json", "node.log"
# -P: no folder that the command happens to be called from may stand in for our packages.
FEDSCAN = (sys.executable, "-P", "-c", "from common.cli import main; main()", "site")
STATE_BYTES = 64 * 1024
_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Part:
    """One process of a site.

    Attributes:
        name: `trainer` or `link`.
        command: What runs it.
        grace: Seconds between SIGTERM and SIGKILL when it is stopped.
        online: Whether it has a network.
    """

    name: str
    command: tuple[str, ...]
    grace: float
    online: bool = True


@dataclass(frozen=True)
class Patience:
    """How fast a process that died is started again; seconds.

    Attributes:
        first: Pause after the first death.
        most: The pause doubles with each death, up to this.
        calm: Who lived so long begins with `first` again.
        look: Time between two looks at the processes.
    """

    first: float = 1.0
    most: float = 60.0
    calm: float = 120.0
    look: float = 0.2


class PartState(Record):
    """What the node sees of a process.

    Attributes:
        pid: Its process id; none while it waits to be started again.
        since: When it was started last.
        deaths: How often it ended without being asked to.
        last: How it ended last: `exit code N` or `signal N`.
        online: Whether it has a network.
    """

    pid: int | None = None
    since: AwareDatetime
    deaths: int = Field(0, ge=0)
    last: str | None = Field(None, max_length=40)
    online: bool = True


class NodeState(Record):
    """HOME/node.json: the node and its processes by name."""

    pid: int
    since: AwareDatetime
    parts: dict[Name, PartState]


def parts(home: Path, form: str = "text") -> tuple[Part, ...]:
    """Trainer and link of the site in `home`, in the order in which they are started; `form` of their logs."""
    where = ("--home", str(home), "--log", form)
    offline = without_network()
    return (
        Part("trainer", (*offline, *FEDSCAN, "trainer", *where), grace=60, online=not offline),
        Part("link", (*FEDSCAN, "link", *where), grace=20),
    )


def without_network() -> tuple[str, ...]:
    """What to put before a command that shall have no network; empty where the system does not allow it.

    A network namespace with nothing in it (util-linux' unshare). An ordinary user also needs a user namespace, which
    some systems forbid; root must not take one, or it could not read other users' scans any more.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    prefix = (unshare, "--net", *(() if os.geteuid() == 0 else ("--map-current-user",)), "--")
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)  # noqa: S603
    return prefix if tried.returncode == 0 else ()


def running(home: Path) -> int | None:
    """The process id of the node of `home` (0 while it is being written), None when none runs."""
    if not held(home / LOCK):
        return None
    text = (home / LOCK).read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else 0


def read_state(home: Path) -> NodeState | None:
    """What the node says, None when there is nothing to read."""
    try:
        return read_record(NodeState, (home / STATE).read_bytes(), STATE_BYTES)
    except (FileNotFoundError, RecordError):
        return None


class Node:
    """Runs the processes of one site until told to stop.

    Args:
        home: The site's folder.
        parts: The processes, in the order in which they are started; they are stopped in the reverse order.
        patience: How fast who died is started again.
    """

    def __init__(self, home: Path, parts: Sequence[Part], patience: Patience | None = None) -> None:
        self._home = home
        self._watched = [_Watched(part, patience or Patience()) for part in parts]
        self._look = (patience or Patience()).look
        self._since = datetime.now(UTC)
        self._stopping = False

    def run(self) -> None:
        """Start, watch and, after SIGTERM or SIGINT, stop; raises FedscanError when the site runs already."""
        with alone(
            self._home / LOCK, FedscanError(f"the site in {self._home} is running already; see: fedscan site status")
        ):
            before = {number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                self._watch()
            finally:
                for watched in reversed(self._watched):
                    watched.stop()
                (self._home / STATE).unlink(missing_ok=True)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _watch(self) -> None:
        while not self._stopping:
            changed = [watched.look() for watched in self._watched]
            if any(changed):
                state = NodeState(
                    pid=os.getpid(), since=self._since, parts={w.part.name: w.state() for w in self._watched}
                )
                write_whole(self._home / STATE, lambda part: part.write_bytes(state.canonical()))  # noqa: B023
            keep_short(self._home / LOG)
            time.sleep(self._look)

    def _told(self, number: int, frame: FrameType | None) -> None:
        # Nothing but this: the signal may have come in the middle of anything.
        self._stopping = True


class _Watched:
    """One process, and what became of it so far."""

    def __init__(self, part: Part, patience: Patience) -> None:
        self.part = part
        self._patience = patience
        self._child: subprocess.Popen[bytes] | None = None
        self._started = self._due = self._pause = 0.0
        self._since = datetime.now(UTC)
        self._deaths = 0
        self._last: str | None = None

    def look(self) -> bool:
        """Start it when that is due, note its death; whether anything changed."""
        if self._child is None:
            return time.monotonic() >= self._due and self._start()
        code = self._child.poll()
        return code is not None and self._ended(code)

    def state(self) -> PartState:
        """For people."""
        pid = self._child.pid if self._child else None
        return PartState(pid=pid, since=self._since, deaths=self._deaths, last=self._last, online=self.part.online)

    def stop(self) -> None:
        """End it, by force after its grace."""
        if self._child is None:
            return
        log.info("stopping %s", self.part.name)
        self._child.terminate()
        try:
            self._child.wait(self.part.grace)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %g s and is killed", self.part.name, self.part.grace)
            self._child.kill()
            self._child.wait()
        self._child = None

    def _start(self) -> bool:
        # In a session of its own, so that Ctrl-C reaches the node only, which stops them in order. This process has
        # one thread, so code between fork and exec is safe.
        self._child = subprocess.Popen(  # noqa: S603
            self.part.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent
        )
        self._started, self._since = time.monotonic(), datetime.now(UTC)
        where = "" if self.part.online else ", without network"
        log.info("%s started (process %d%s)", self.part.name, self._child.pid, where)
        return True

    def _ended(self, code: int) -> bool:
        patience, now = self._patience, time.monotonic()
        calm = now - self._started > patience.calm or not self._pause
        self._pause = patience.first if calm else min(2 * self._pause, patience.most)
        self._child, self._due = None, now + self._pause
        self._deaths += 1
        self._last = f"signal {-code}" if code < 0 else f"exit code {code}"
        log.warning("%s ended (%s); it starts again in %g s", self.part.name, self._last, self._pause)
        return True


def _end_with_parent() -> None:
    """A node that was killed leaves no process behind that would stand in the way of the next one (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)
