"""Where a site's scans still say who the patients are. Identity stays at the site, so these are warnings at most.

No finding repeats what was found: it says how many and where to look. That matters to a site that shows its screen,
sends a screenshot, or wants to hand scans on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from client.data.dicom.workers import Unreadable, Workers, shared_workers
from client.data.gate.codes import finding
from client.data.gate.filetexts import EMBEDDED, texts_of
from client.data.gate.patterns import kinds_in
from client.data.volume import Case, Finding, Stack, files_of

_BATCH = 64
_WORDS = {"name": "a name", "date": "a date", "number": "a number as patients have it", "mail": "a mail address"}


def check_privacy(cases: Sequence[Case], root: Path, workers: Workers | None = None) -> list[Finding]:
    """Every privacy finding of a site: its DICOM headers (one file per series), paths, and headers of other files.

    Args:
        cases: As they were found.
        root: The folder of the scans; what lies above it says nothing of a patient.
        workers: Children that parse DICOM; those of the process by default.
    """
    root = root.resolve() if root.is_dir() else root.resolve().parent
    headers = _headers(cases, root, workers or shared_workers())
    return [
        *_site_wide(headers),
        *(found for case, told in headers for found in _of_case(case, told)),
        *_paths(cases, root, headers),
        *_file_headers(cases),
    ]


def _headers(cases: Sequence[Case], root: Path, workers: Workers) -> list[tuple[Case, dict[str, Any]]]:
    """What the child says of the first file of each DICOM image."""
    chosen = [(case, image.paths[0]) for case in cases for image in case.images if isinstance(image, Stack)]
    told: list[tuple[Case, dict[str, Any]]] = []
    for start in range(0, len(chosen), _BATCH):
        batch = chosen[start : start + _BATCH]
        try:
            answer = workers.ask("privacy", paths=[str(path.resolve()) for _, path in batch], root=str(root))
        except Unreadable:
            continue
        told += [(case, header) for (case, _), header in zip(batch, answer["files"], strict=True) if header]
    return told


def _site_wide(headers: Sequence[tuple[Case, dict[str, Any]]]) -> list[Finding]:
    """`privacy-header`: attributes that name a person are filled; `privacy-private`: there are private elements."""
    findings = []
    person = Counter(name for _, told in headers for name in told["person"])
    if person:
        listed = ", ".join(f"{name} ({number})" for name, number in person.most_common())
        with_any = sum(bool(told["person"]) for _, told in headers)
        findings.append(finding("privacy-header", "", f"{with_any} of {len(headers)} series: {listed}"))
    private = sum(bool(told["private"]) for _, told in headers)
    if private:
        findings.append(finding("privacy-private", "", f"{private} of {len(headers)} series have private elements"))
    return findings


def _of_case(case: Case, told: dict[str, Any]) -> Iterable[Finding]:
    """`burned-in`, `burned-in-unknown`, `screen`, `privacy-text`."""
    if told["text"] == "yes":
        yield finding("burned-in", case.id, "the header says that there is text in the pixels (0028,0301)")
    elif told["text"]:
        yield finding("burned-in-unknown", case.id, "the header does not say whether there is text in the pixels")
    if told["screen"]:
        yield finding("screen", case.id, "a secondary capture or a screen, not a scan")
    if told["texts"]:
        yield finding("privacy-text", case.id, f"{', '.join(told['texts'])} names the patient or another person")


def _paths(cases: Sequence[Case], root: Path, headers: Sequence[tuple[Case, dict[str, Any]]]) -> list[Finding]:
    """`privacy-path`: identity in names of files or folders, found again from the header, or by its looks."""
    again = Counter(name for _, told in headers for name in told["path"])
    looks = Counter(kind for case in cases for kind in _kinds_in_path(case, root))
    said = [f"{name} of the header in the path of {number} series" for name, number in again.most_common()]
    said += [f"{_WORDS[kind]} in the path of {number} case(s)" for kind, number in looks.most_common()]
    return [finding("privacy-path", "", "; ".join(said))] if said else []


def _kinds_in_path(case: Case, root: Path) -> set[str]:
    files = [files_of(source)[0] for source in (*case.images, *((case.label,) if case.label else ()))]
    kinds: set[str] = set()
    for file in files:
        path = file.resolve()
        kinds |= kinds_in(str(path.relative_to(root) if path.is_relative_to(root) else path))
    return kinds


def _file_headers(cases: Sequence[Case]) -> list[Finding]:
    """`privacy-file-header`: identity in free text inside NIfTI, NRRD or picture files."""
    found: Counter[tuple[str, str]] = Counter()
    for case in cases:
        files = [source for source in (*case.images, case.label) if isinstance(source, Path)]
        found.update({(field, kind) for file in files for field, text in texts_of(file) for kind in kinds_in(text)})
        found.update({(field, "") for file in files for field, text in texts_of(file) if field == EMBEDDED})
    said = [f"{_WORDS[kind]} in {field} ({number} cases)" for (field, kind), number in found.most_common() if kind]
    said += [f"{field} ({number} cases)" for (field, kind), number in found.most_common() if not kind]
    return [finding("privacy-file-header", "", "; ".join(said))] if said else []
