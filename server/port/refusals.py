"""Who was turned away, and why: one line of JSON each, never a byte of what was sent."""

import json
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

log = logging.getLogger("fedscan.gate")

_KEPT = 4096  # reasons remembered, so that a flood of new ones costs no memory


@dataclass(frozen=True)
class Refusal:
    """All refusals of one reason.

    Attributes:
        who: As in `Refusals.say`.
        where: The route, or `connection`.
        why: The reason.
        times: How often.
        last: When it was the last time.
    """

    who: str
    where: str
    why: str
    times: int
    last: datetime


class Refusals:
    """Writes refusals to the log: the same one at most once a second, with how many there were.

    Attributes:
        count: All refusals since the start.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._all: dict[tuple[str, str, str], Refusal] = {}
        self._lock = threading.Lock()

    def say(self, who: str, where: str, why: str, status: int | None = None) -> None:
        """Note a refusal.

        Args:
            who: The site's name, or its certificate's hash, or an address where neither is known.
            where: The route, or `connection`.
            why: For the coordinator's people.
            status: The HTTP status that was answered, if any was.
        """
        now, key = time.monotonic(), (who, where, why)
        with self._lock:
            self.count += 1
            before = self._all.pop(key, None)
            if len(self._all) >= _KEPT:
                del self._all[next(iter(self._all))]
            self._all[key] = Refusal(*key, before.times + 1 if before else 1, datetime.now(UTC))
            last, silent = self._last.get(key, (0.0, 0))
            if last and now - last < 1:
                self._last[key] = (last, silent + 1)
                return
            if len(self._last) >= _KEPT:
                self._last.clear()
            self._last[key] = (now, 0)
        line = {"refused": who, "where": where, "why": why, "status": status, "times": silent + 1}
        log.warning("%s", json.dumps(line))

    def recent(self, most: int) -> list[Refusal]:
        """The reasons of the last refusals, the newest first."""
        with self._lock:
            return list(self._all.values())[: -most - 1 : -1]
