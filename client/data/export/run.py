"""A de-identified copy of a site's cases, for those who must give scans away. fedscan itself never needs one.

    OUT/PATIENT/CASE/0/UID.dcm …      first channel; 0.nii.gz and so on for other formats
    OUT/PATIENT/CASE/UID.dcm          the label
    OUT/cases.csv                     lists them, so that fedscan reads the copy as it reads any table of cases
    OUT/record.json                   what was done: profile, options, counts, a hash of each file
    OUT/.unfinished/                  until all is done: what is done already, so that it goes on where it stopped

Names are pseudonyms by the secret of the site's home. A case is there whole or not at all.
"""

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client.data.dicom.workers import Workers, shared_workers
from client.data.each import each
from client.data.export.case import CaseExport, Shared, export_case
from client.data.export.policy import ExportOptions
from client.data.secret import Secret, site_secret
from client.data.volume import Case, Finding, files_of
from client.site import SiteConfig
from common.disk import write_whole
from common.errors import DataError

__all__ = ["ExportOptions", "Record", "export"]

FORMAT = 1
_UNFINISHED = ".unfinished"
# Folders of a site's home that belong to others.
_OWN = ("trainer", "link", "certificates", "cache", "shared")


@dataclass(frozen=True)
class Record:
    """What an export did. All but `findings` is written to record.json and holds no original identifier.

    Attributes:
        software: Name and version.
        profile: Of DICOM PS3.15.
        options: Codes of PS3.16 CID 7050 that are really done in some file.
        dates: How dates were treated.
        patients: Number of exported patients.
        cases: Number of exported cases.
        left_out: Reason -> number of cases that stayed.
        removed: DICOM elements left out, nested ones included.
        files: Path in the export -> SHA-256.
        findings: Which case stayed and what to do; for the site only.
    """

    software: str
    profile: str
    options: tuple[str, ...]
    dates: str
    patients: int
    cases: int
    left_out: dict[str, int]
    removed: int
    files: dict[str, str]
    findings: tuple[Finding, ...] = ()

    def document(self) -> dict[str, Any]:
        """As written to record.json."""
        return {"format": "fedscan.export", "version": FORMAT} | {
            name: value for name, value in vars(self).items() if name != "findings"
        }


def export(cases: Sequence[Case], out: Path, site: SiteConfig, options: ExportOptions,
           progress: Callable[[int, int], None] | None = None, *, home: Path,
           workers: Workers | None = None) -> Record:  # fmt: skip
    """Write a de-identified copy of `cases` to `out`.

    Called again after it was stopped, with the same options, it goes on where it was.

    Args:
        cases: As `catalogue.find_cases` gives them, without excluded ones.
        out: A new or empty folder, outside the scans and the site's home.
        site: Whose cases these are.
        options: What is kept beyond the profile.
        progress: Called with (cases done, cases in all) after each case.
        home: The site's own folder, where the secret of the pseudonyms is.
        workers: Children that parse DICOM; those of the process by default.

    Raises:
        DataError: `out` lies within the scans or holds something else, or no case may leave.
        StorageError: The disk is full.
    """
    # Children that were started in another folder must find it, too.
    out = out.absolute()
    _refuse_place(out, cases, site, home)
    secret = site_secret(home, "export")
    software = f"fedscan {version('fedscan')}"
    _begin(out, options, secret, software)
    shared = Shared(options, secret, software, workers or shared_workers())
    results = each(_Work(out, shared), cases, progress)
    _take_away(out, results)
    record = _record(results, options, software)
    if not record.cases:
        listed = "\n".join(f"  {f.case}: {f.what}. {f.remedy}" for f in record.findings[:5])
        shutil.rmtree(out / _UNFINISHED)
        raise DataError(f"site {site.name}: no case may be exported ({len(cases)} found).\n{listed}")
    write_whole(out / "cases.csv", lambda path: path.write_text(_table(results), encoding="utf-8"))
    text = json.dumps(record.document(), indent=1, sort_keys=True) + "\n"
    write_whole(out / "record.json", lambda path: path.write_text(text, encoding="utf-8"))
    shutil.rmtree(out / _UNFINISHED)
    return record


@dataclass(frozen=True)
class _Work:
    """One case, unless it is done already."""

    out: Path
    shared: Shared

    def __call__(self, case: Case) -> CaseExport:
        name = self.shared.secret.name(f"case\x1f{case.id}")
        done = self.out / _UNFINISHED / f"{name}.json"
        state = self._state(case)
        finished = CaseExport.read(done, state)
        if finished and all((self.out / path).is_file() for path in finished.files):
            return finished
        result = export_case(case, name, self.out, self.out / _UNFINISHED / name, self.shared)
        if not result.finding:
            write_whole(done, lambda path: path.write_text(result.text(state), encoding="utf-8"))
        return result

    def _state(self, case: Case) -> str:
        """Changes when a file of the case does."""
        files = [path for source in (*case.images, *((case.label,) if case.label else ())) for path in files_of(source)]
        stats = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]
        return self.shared.secret.name(repr((case.id, case.patient, files, stats)))


def _refuse_place(out: Path, cases: Sequence[Case], site: SiteConfig, home: Path) -> None:
    """Nothing is ever written among the scans or the site's own files."""
    place = out.resolve()
    sources = {path.resolve().parent for case in cases for image in case.images for path in files_of(image)}
    scans = site.data.resolve()
    sources |= {scans if scans.is_dir() else scans.parent}
    for source in sources:
        if place.is_relative_to(source):
            raise DataError(f"{out}: lies within the scans ({source}). Name a folder outside of them.")
    for name in _OWN:
        if place.is_relative_to((home / name).resolve()):
            raise DataError(f"{out}: lies within the site's own files ({home / name}). Name a folder outside of them.")


def _begin(out: Path, options: ExportOptions, secret: Secret, software: str) -> None:
    """Mark `out` as an export of these options that is under way."""
    mark = out / _UNFINISHED / "export.json"
    text = secret.name(repr((FORMAT, options, software)))
    if mark.is_file():
        if mark.read_text(encoding="utf-8") != text:
            raise DataError(f"{out}: holds a part of an export with other options. Give these, or name a new folder.")
        return
    if out.exists() and (not out.is_dir() or any(p.name != _UNFINISHED for p in out.iterdir())):
        raise DataError(f"{out}: is there already and not empty. Name a new folder.")
    write_whole(mark, lambda path: path.write_text(text, encoding="utf-8"))


def _take_away(out: Path, results: Sequence[CaseExport]) -> None:
    """What was written before a stop, of cases that were excluded or refused since."""
    listed = {out / result.patient / result.name for result in results if not result.finding}
    for patient in out.iterdir():
        if patient.name == _UNFINISHED or not patient.is_dir():
            continue
        for case in patient.iterdir():
            if case not in listed:
                shutil.rmtree(case)
        if not any(patient.iterdir()):
            patient.rmdir()


def _record(results: Sequence[CaseExport], options: ExportOptions, software: str) -> Record:
    done = [result for result in results if not result.finding]
    return Record(
        software=software,
        profile="DICOM PS3.15 Annex E, Basic Application Level Confidentiality Profile",
        options=tuple(sorted({code for result in done for code in result.options})),
        dates="shifted" if options.dates == "shift" else "removed",
        patients=len({result.patient for result in done}),
        cases=len(done),
        left_out=dict(sorted(Counter(result.refused for result in results if result.finding).items())),
        removed=sum(result.removed for result in done),
        files=dict(sorted((path, digest) for result in done for path, digest in result.files.items())),
        findings=tuple(result.finding for result in results if result.finding),
    )


def _table(results: Sequence[CaseExport]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("case", "patient", "image", "label"))
    done = sorted((result for result in results if not result.finding), key=lambda result: result.name)
    rows.writerows((result.name, result.patient, ";".join(result.images), result.label) for result in done)
    return text.getvalue()
