"""Every finding's code in one table, with its severity, what it means and what to do."""

from client.data.gate.code import Code
from client.data.gate.codes_dicom import FILES, KINDS, LAYOUT, STRUCTURES, VOLUMES
from client.data.gate.codes_gate import GATE
from client.data.volume import Finding

CODES: dict[str, Code] = {**GATE, **STRUCTURES, **LAYOUT, **VOLUMES, **KINDS, **FILES}
# No errors, and yet the case is not used.
LEAVING_OUT = ("no-label", "partly-labelled", "excluded")


def finding(code: str, case: str, what: str, remedy: str = "") -> Finding:
    """A finding of `code`, with the severity of the table and its remedy unless another is given.

    Args:
        code: A key of `CODES`.
        case: The case's id; empty for the whole site.
        what: The file and what is wrong with it.
        remedy: A remedy that fits this case better than the table's.
    """
    known = CODES[code]
    return Finding(code, known.severity, case, what, remedy or known.remedy)


def table() -> str:
    """All codes as a Markdown table, errors first, as docs/findings.md shows them."""
    order = ("error", "warning", "info")
    rows = sorted(CODES.items(), key=lambda item: (order.index(item[1].severity), item[0]))
    lines = ["| code | severity | what is wrong | what to do |", "|---|---|---|---|"]
    lines += [f"| `{code}` | {c.severity} | {c.what} | {c.remedy} |" for code, c in rows]
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/findings.md."""
    return (
        "# What the quality gate can find\n\n"
        "Made by `fedscan data findings > docs/findings.md`. An `error` leaves the case out (or, where it is of the "
        "whole site, the files that it names); a `warning` asks a person to look; `info` is good to know. Figures of "
        "hits and false alarms: [gate-measured.md](gate-measured.md).\n\n" + table()
    )
