"""What a finding's code stands for."""

from typing import NamedTuple


class Code(NamedTuple):
    """What a finding's code stands for.

    Attributes:
        severity: `error` leaves the case out; `warning` and `info` do not.
        what: What is wrong, in words that fit every case.
        remedy: What to do.
    """

    severity: str
    what: str
    remedy: str
