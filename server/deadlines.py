"""How long an exchange waits for its sites: from what each was measured to need, not one fixed time for all."""

from collections.abc import Mapping
from dataclasses import dataclass

FIRST = 24 * 3600.0  # seconds, before anything was measured, and at most: preparing a hospital's scans may take hours
PATIENCE = 3.0  # times what a site needed so far: its machine may be busy, its line slow
GRACE = 600.0  # seconds on top: a restart, a line that was cut
BRIEF = 60.0  # seconds for sites that were too late before and are not there now


@dataclass(frozen=True)
class _Pace:
    per_unit: float
    transfer: float


class Deadlines:
    """The deadlines of one run.

    Work is measured in units: training steps, or cases to evaluate. The rest of the time from question to answer is
    the line's. A site without a past counts as the slowest of the others, so that an exchange ends soon after those
    that are there have answered, however long ago it was that the missing one was seen.

    Args:
        override: Seconds that the study sets for every exchange; none to measure.
    """

    def __init__(self, override: float | None = None) -> None:
        self._override = override
        self._paces: dict[str, dict[str, _Pace]] = {}

    def answered(self, kind: str, site: str, units: float, work: float, elapsed: float) -> None:
        """An answer came.

        Args:
            kind: What was asked.
            site: Who answered.
            units: How much work it was.
            work: Seconds that the site says the work took; never taken for more than what was seen.
            elapsed: Seconds from question to answer.
        """
        work = min(work, elapsed)
        self._paces.setdefault(kind, {})[site] = _Pace(work / max(1.0, units), elapsed - work)

    def seconds(self, kind: str, units: Mapping[str, float]) -> float:
        """How long to wait from the question on for sites with so much work each; none of them is a lost one."""
        if self._override is not None:
            return self._override
        paces = self._paces.get(kind)
        if not units:
            return BRIEF
        if not paces:
            return FIRST
        slowest = _Pace(max(p.per_unit for p in paces.values()), max(p.transfer for p in paces.values()))
        needs = ((paces.get(site, slowest), n) for site, n in units.items())
        # Bounded: who answers just before each deadline would else make every next one three times as long.
        return min(FIRST, GRACE + PATIENCE * max(pace.per_unit * n + pace.transfer for pace, n in needs))
