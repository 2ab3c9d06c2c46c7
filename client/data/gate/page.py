"""The gate's result as one HTML file for the people of the site: it names files and shows scans, so it stays there."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from client.data.cache import meta_in
from client.data.gate.codes import CODES
from client.data.gate.thumbnails import colour, panels
from client.data.volume import CachedCase, Case, Finding
from common.disk import write_whole
from common.pages import templates
from common.section import Part
from common.study import Study

SEVERITIES = ("error", "warning", "info")
TITLES = {"error": "Left out", "warning": "To be looked at", "info": "Good to know"}
# Cases with pictures: those with findings first. More would make a page that no browser likes.
PICTURES = 60
# Findings of one kind that are listed by case.
LISTED = 200


@dataclass(frozen=True)
class Checked:
    """What the page shows.

    Attributes:
        site: The site's name.
        study: For what the scans were checked.
        cases: Every case that was found, with its prepared arrays; None for those that are left out.
        findings: Of the site and of its cases.
        parts: Case -> part of the split, as far as there is one.
    """

    site: str
    study: Study
    cases: Sequence[tuple[Case, CachedCase | None]]
    findings: Sequence[Finding]
    parts: Mapping[str, Part]


def write_page(path: Path, checked: Checked) -> None:
    """Write the page to `path`, readable by its owner only.

    Raises:
        StorageError: It cannot be written.
    """
    text = render(checked)

    def write(part: Path) -> None:
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    write_whole(path, write)


def render(checked: Checked) -> str:
    """The page as text."""
    jinja = templates(Path(__file__).parent)
    usable = sum(cached is not None for _, cached in checked.cases)
    groups = grouped(checked.findings)
    labels = checked.study.data.labels
    return jinja.get_template("page.html.j2").render(
        site=checked.site,
        study=checked.study,
        tone=tone(checked, usable),
        usable=usable,
        found=len(checked.cases),
        first=first_sentence(checked, usable),
        flagged=len({f.case for f in checked.findings if f.severity == "warning" and f.case}),
        reasons=reasons(checked),
        parts=Counter(checked.parts[case.id] for case, cached in checked.cases if cached and case.id in checked.parts),
        severities=[(s, TITLES[s], [g for g in groups if g["severity"] == s]) for s in SEVERITIES],
        cards=cards(checked),
        pictures=PICTURES,
        listed=LISTED,
        colours=[(name, colour(number)) for number, name in enumerate(labels, start=1)],
        written=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
    )


def tone(checked: Checked, usable: int) -> str:
    """The colour of the first box: bad where cases are left out, open where something is to be looked at."""
    if not usable or usable < len(checked.cases) or any(f.severity == "error" for f in checked.findings):
        return "bad"
    return "open" if any(f.severity == "warning" for f in checked.findings) else "good"


def first_sentence(checked: Checked, usable: int) -> str:
    """What matters most, in a sentence or two."""
    out, flagged = len(checked.cases) - usable, {f.case for f in checked.findings if f.severity == "warning" and f.case}
    if not usable:
        return "No case can be used as it is; below stands why, and what to do."
    parts = [f"{_cases(out)} {'is' if out == 1 else 'are'} left out" if out else "No case is left out"]
    used = {case.id for case, cached in checked.cases if cached} & flagged
    if used:
        parts.append(f"{_cases(len(used))} can be used but should be looked at by a person first")
    return "; ".join(parts) + "."


def reasons(checked: Checked) -> list[tuple[str, int]]:
    """Why cases are left out, the most frequent first; a case with several reasons counts for each."""
    out = {case.id for case, cached in checked.cases if cached is None}
    said = {(f.code, f.case) for f in checked.findings if f.case in out and f.severity != "info"}
    return [(_title(code), n) for code, n in Counter(code for code, _ in sorted(said)).most_common()]


def grouped(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings by severity and code, the most frequent first within a severity."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    ordered = sorted(groups.items(), key=lambda item: (SEVERITIES.index(item[0][0]), -len(item[1]), item[0][1]))
    return [
        {
            "severity": severity,
            "code": code,
            "title": _title(code),
            "remedies": list(dict.fromkeys(f.remedy for f in some)),
            "some": some,
            "of_site": all(not f.case for f in some),
        }
        for (severity, code), some in ordered
    ]


def cards(checked: Checked) -> list[dict[str, Any]]:
    """The prepared cases with their pictures: those with errors and warnings first, then in the order of the site."""
    by_case: dict[str, list[Finding]] = {}
    for finding in checked.findings:
        by_case.setdefault(finding.case, []).append(finding)

    def rank(case: Case) -> int:
        return min((SEVERITIES.index(f.severity) for f in by_case.get(case.id, [])), default=len(SEVERITIES))

    prepared = sorted(((c, cached) for c, cached in checked.cases if cached), key=lambda item: rank(item[0]))
    return [
        {
            "case": case,
            "part": checked.parts.get(case.id, ""),
            "findings": by_case.get(case.id, []),
            "worst": SEVERITIES[rank(case)] if rank(case) < len(SEVERITIES) else "",
            "panels": pictures(cached),
        }
        for case, cached in prepared[:PICTURES]
    ]


def pictures(cached: CachedCase) -> list[tuple[str, str]]:
    """The panels of one prepared case."""
    image, label = (np.load(cached.folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in ("image", "label"))
    return panels(image, label, meta_in(cached.folder)["plan"]["spacing"])


def _title(code: str) -> str:
    return CODES[code].what if code in CODES else code.replace("-", " ")


def _cases(number: int) -> str:
    return f"{number} case{'s' if number != 1 else ''}"
