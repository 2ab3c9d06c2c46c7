"""What of the findings may be shown outside the site: kinds, numbers, made-up names. Nothing that a finding says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.data.gate.codes import CODES
from client.data.secret import Secret, site_secret
from client.data.volume import Finding

FORMAT = 1
# Numbers of cases below this are withheld: of so few, single patients could be told.
MINIMUM = 10
SEVERITIES = ("error", "warning", "info")
# Stands for a code that is not in the table: its letters could be anything.
OTHER = "other"


def shared(home: Path, findings: Sequence[Finding], found: int, minimum: int = MINIMUM) -> dict[str, Any]:
    """What may be shown to the coordinator, ready for JSON.

    Args:
        home: The site's folder, where the secret of the made-up names is.
        findings: Of the site and of its cases.
        found: Number of cases at the site.
        minimum: Numbers of cases below it are withheld, and the names of these cases with them.

    Returns:
        `found` (null if withheld) and `findings`: `code`, `severity`, `count` (null if withheld; for findings of the
        whole site always null) and `cases`, the made-up names. A case has another name under each code, so that no
        smaller group shows where two lists are laid side by side.

    Raises:
        IdentityError: The secret cannot be made or read.
    """
    secret = site_secret(home, "share")
    kinds = sorted({(SEVERITIES.index(severity), code) for code, severity in map(_kind, findings)})
    told = [_told(code, SEVERITIES[rank], findings, secret, minimum) for rank, code in kinds]
    return {
        "format": "fedscan.findings",
        "version": FORMAT,
        "minimum": minimum,
        "found": found if found >= minimum else None,
        "findings": told,
    }


def made_up_name(home: Path, code: str, case: str) -> str:
    """The name of a case under a code in what `shared` gives; with it a site finds out which case is meant."""
    return _name(site_secret(home, "share"), code, case)


def _told(code: str, severity: str, findings: Sequence[Finding], secret: Secret, minimum: int) -> dict[str, Any]:
    cases = {f.case for f in findings if f.case and _kind(f) == (code, severity)}
    enough = len(cases) >= minimum
    return {
        "code": code,
        "severity": severity,
        "count": len(cases) if enough else None,
        "cases": sorted(_name(secret, code, case) for case in cases) if enough else [],
    }


def _kind(finding: Finding) -> tuple[str, str]:
    """Code and severity, both out of closed lists."""
    return (
        finding.code if finding.code in CODES else OTHER,
        finding.severity if finding.severity in SEVERITIES else SEVERITIES[0],
    )


def _name(secret: Secret, code: str, case: str) -> str:
    return secret.name(f"{code}\x1f{case}")
