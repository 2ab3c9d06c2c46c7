"""Time, as the link sees it: the machine's own, or one on which a test lets a night pass at once."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the link needs of a clock."""

    def now(self) -> float:
        """Seconds, of any origin."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, at most so long; whether it is."""


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """As `threading.Event.wait`."""
        return event.wait(seconds)
