"""What a leg of the comparison returns, and the processor time of its processes."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """One turn of a leg.

    Attributes:
        seconds: Of each counted round.
        cpu: Processor seconds of all its processes per counted round.
        parts: Where the seconds went, round by round; empty for a leg that is not looked into.
        cpu_parts: Where the processor time went, per round; the rest of each process is connections and polls.
    """

    seconds: list[float]
    cpu: float
    parts: list[dict[str, float]] = []  # noqa: RUF012 - a NamedTuple's default, never changed
    cpu_parts: dict[str, float] = {}  # noqa: RUF012


def processor_seconds(processes: Iterable[int]) -> float:
    """What processes have used so far, with those that they started and that have ended (proc(5), stat)."""
    ticks = 0
    for process in processes:
        with suppress(OSError):
            text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
            ticks += sum(int(n) for n in text.rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
