"""What a preflight check says."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One line of `fedscan site preflight`.

    Attributes:
        name: What was looked at.
        state: `skipped` when something else must be put right first, or another user has to look.
        what: What was seen; names no patient, case or single scan.
        remedy: What helps; empty when there is nothing to do.
    """

    name: str
    state: Literal["ok", "problem", "skipped"]
    what: str
    remedy: str = ""


def ok(name: str, what: str) -> Check:
    """A tick."""
    return Check(name, "ok", what)


def problem(name: str, what: str, remedy: str) -> Check:
    """Something to put right."""
    return Check(name, "problem", what, remedy)


def skipped(name: str, what: str) -> Check:
    """Not looked at, and why."""
    return Check(name, "skipped", what)
