"""Findings about a case's files as such: absent, or refused by a reader."""

from client.data.gate.codes import finding
from client.data.volume import Case, Finding


def no_label(case: Case) -> Finding:
    """`no-label`: the case cannot be trained or judged on."""
    return finding("no-label", case.id, f"{', '.join(str(p) for p in case.images)}: no label file")


def unreadable(case: Case, error: Exception) -> Finding:
    """`unreadable`: a reader refused a file; its message names file and remedy."""
    what, _, remedy = str(error).partition(". ")
    return finding("unreadable", case.id, what, remedy)
