"""The gate for a whole site: its cases against each other, from what was kept of each."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from client.data.gate.codes import CODES, finding
from client.data.gate.cohort import check_cohort
from client.data.gate.duplicates import check_duplicates
from client.data.gate.orientation import check_directions, check_images
from client.data.gate.outliers import check_fragments, check_volumes
from client.data.gate.placement import check_placements, check_shifts
from client.data.preprocess import Meta
from client.data.volume import Case, Finding
from common.study import Study

# Share of a site's cases from which a finding is the site's way rather than the case's fault, and cases at least.
_USUAL, _FEWEST = 0.25, 10


def check_site(
    cases: Sequence[tuple[Case, Meta]], study: Study, use: Literal["train", "test"] = "train"
) -> list[Finding]:
    """What only shows when the usable cases of a site are seen together; reads no array.

    Args:
        cases: Each usable case with its meta data.
        study: Labels and shares of the split.
        use: What the site does.
    """
    labels = study.data.labels
    structures = [(case, meta["gate"]["structures"]) for case, meta in cases]
    edges = [(case, meta["gate"]["edges"]) for case, meta in cases]
    return [
        *check_cohort(len({case.patient for case, _ in cases}), study, use),
        *check_placements(edges),
        *check_shifts(edges),
        *check_duplicates(cases),
        *check_volumes(structures, labels),
        *check_fragments(structures, labels),
        *check_directions(structures, labels),
        *check_images([(case, meta["gate"]) for case, meta in cases]),
    ]


def folded(findings: Sequence[Finding], cases: int) -> list[Finding]:
    """`findings` for a short list: what more than a quarter of the site's cases have is said once, with the number.

    Args:
        findings: Of the site and of its cases; errors are never folded.
        cases: Number of cases at the site.
    """
    number = Counter(f.code for f in findings if f.case and f.severity != "error")
    usual = {code for code, n in number.items() if n >= max(_FEWEST, _USUAL * cases)}
    kept = [f for f in findings if f.code not in usual or not f.case or f.severity == "error"]
    return [finding(code, "", f"{number[code]} of {cases} cases: {CODES[code].what}") for code in sorted(usual)] + kept
