"""Where the time of a round goes, over several processes: each notes what it does when, on the machine's one clock.

Within a thread the innermost of nested doings counts. A moment in which several threads or processes do something is
shared out among them equally, and one in which nobody does is idle: so the parts of a round add up to its seconds.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

IDLE = "idle"
Moment = tuple[float, float]  # of the machine's clock and of the thread's processor time


class Stretch(NamedTuple):
    """Something that one thread did without a break, and the processor time that it took."""

    part: str
    start: float
    end: float
    cpu: float = 0.0


class Recorder:
    """Writes what this process does, a line for each stretch.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._lock = threading.Lock()
        self._here = threading.local()

    def close(self) -> None:
        """Note nothing any more."""
        self._file.close()

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Note each call of the function `name` of a module or class as `part`."""
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def noted(*args: Any, **kwargs: Any) -> Any:
            with self.doing(part):
                return inner(*args, **kwargs)

        setattr(owner, name, noted)

    def mark(self, part: str) -> None:
        """Note a moment."""
        now = _now()
        self._note(part, now, now)

    @contextmanager
    def doing(self, part: str) -> Iterator[None]:
        """Note the block as `part`."""
        stack, now = self._stack(), _now()
        if stack:
            self._note(*stack[-1], now)
        stack.append((part, now))
        try:
            yield
        finally:
            now = _now()
            self._note(*stack.pop(), now)
            if stack:
                stack[-1] = (stack[-1][0], now)

    def _stack(self) -> list[tuple[str, Moment]]:
        if not hasattr(self._here, "stack"):
            self._here.stack = []
        stack: list[tuple[str, Moment]] = self._here.stack
        return stack

    def _note(self, part: str, start: Moment, end: Moment) -> None:
        stretch = Stretch(part, start[0], end[0], end[1] - start[1])
        with self._lock:
            self._file.write(json.dumps(stretch) + "\n")


def _now() -> Moment:
    return time.monotonic(), time.thread_time()


def read(paths: Iterable[Path]) -> list[Stretch]:
    """All stretches of some processes."""
    lines = (line for path in paths for line in path.read_text(encoding="utf-8").splitlines())
    return [Stretch(*json.loads(line)) for line in lines]


def share_out(stretches: Sequence[Stretch], start: float, end: float) -> dict[str, float]:
    """Seconds of each part between `start` and `end`; they add up to the whole."""
    edges: list[tuple[float, int, str]] = []
    for part, first, last, _ in stretches:
        if first < end and last > start:
            edges += [(max(first, start), 1, part), (min(last, end), -1, part)]
    seconds: dict[str, float] = defaultdict(float)
    active: dict[str, int] = defaultdict(int)
    at = start
    for moment, change, part in [*sorted(edges), (end, 0, IDLE)]:
        count = sum(active.values())
        for name, n in active.items():
            if n:
                seconds[name] += (moment - at) * n / count
        if not count:
            seconds[IDLE] += moment - at
        active[part] += change
        at = moment
    return dict(seconds)


def processor_times(stretches: Sequence[Stretch], start: float, end: float) -> dict[str, float]:
    """Processor seconds of each part that ended between `start` and `end`, all threads and processes together."""
    seconds: dict[str, float] = defaultdict(float)
    for stretch in stretches:
        if start < stretch.end <= end:
            seconds[stretch.part] += stretch.cpu
    return dict(seconds)
