"""What a leg of the comparison returns."""

from typing import NamedTuple


class Measured(NamedTuple):
    """One turn of a leg.

    Attributes:
        seconds: Of each counted round.
        parts: Where they went, round by round; empty for a leg that is not looked into.
    """

    seconds: list[float]
    parts: list[dict[str, float]] = []  # noqa: RUF012 - a NamedTuple's default, never changed
