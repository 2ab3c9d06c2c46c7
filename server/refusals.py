"""Who was turned away, and why: one line of JSON each, never a byte of what was sent."""

import json
import logging
import threading
import time

log = logging.getLogger("fedscan.gate")

_KEPT = 4096  # reasons remembered, so that a flood of new ones costs no memory


class Refusals:
    """Writes refusals to the log: the same one at most once a second, with how many there were.

    Attributes:
        count: All refusals since the start.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[tuple[str, str, str], tuple[float, int]] = {}
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
            last, silent = self._last.get(key, (0.0, 0))
            if last and now - last < 1:
                self._last[key] = (last, silent + 1)
                return
            if len(self._last) >= _KEPT:
                self._last.clear()
            self._last[key] = (now, 0)
        line = {"refused": who, "where": where, "why": why, "status": status, "times": silent + 1}
        log.warning("%s", json.dumps(line))
