"""From a site's files to cases ready for training: find, read, check, preprocess, keep on disk, split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.data import cache as cached
from client.data.catalogue import look
from client.data.each import each
from client.data.gate.cases import check_kept
from client.data.gate.codes import finding
from client.data.gate.files import no_label, unreadable
from client.data.gate.site import check_site
from client.data.left_out import left_out, remaining
from client.data.make import SiteLabels, key_of, make, site_labels
from client.data.memory import Memory
from client.data.preprocess import Meta
from client.data.split import split
from client.data.structures import has_names
from client.data.volume import CachedCase, Case, Finding, SiteData
from client.site import SiteConfig
from common.errors import DataError
from common.study import Study


def prepare(study: Study, site: SiteConfig, *, cache: Path, home: Path,
            progress: Callable[[int, int], None] | None = None, listing: Callable[[int, int], None] | None = None,
            insist: bool = True) -> SiteData:  # fmt: skip
    """The usable cases of `site` for `study`, divided by patient.

    Cases that were prepared before, for the same plan, labels and file contents, are taken from `cache`.

    Args:
        study: Its data, plan, seed and evaluation sections are used.
        site: Where the scans are.
        cache: Folder for the arrays; may be shared by sites, studies and processes.
        home: The site's own folder: the split and the memory of files are kept there.
        progress: Called with (cases done, cases in all) in the caller's thread after each case, in whatever order
            they are done: 1, 2, … to all, taken from the cache or not.
        listing: Called with (files done, files in all) before that, while DICOM headers are read.
        insist: Refuse a site that has nothing to train with, or a bad case where `data.bad_cases` is `refuse`.

    Raises:
        DataError: No case can be used for training, a bad case and `data.bad_cases` is `refuse`, or nothing was found.
        StudyError: The site's label rules do not fit the study.
    """
    labels = site_labels(study, site)
    found = look(site, len(study.data.channels), study.data.channels, home, listing)
    memory = Memory(home)
    out = left_out(found.cases, site, memory.digest)
    wanted = remaining(found.cases, out)
    work = partial(_case, study=study, labels=labels, cache=cache, memory=memory)
    results = each(work, wanted, progress)
    memory.save()
    kept = [(result.case, result.meta) for result in results if result.meta is not None]
    findings = (
        *found.findings,
        *_excluded(out, site),
        *(finding for result in results for finding in result.findings),
        *check_site(kept, study, site.use),
    )
    bad = {finding.case for finding in findings if finding.severity == "error"}
    usable = [result.cached for result in results if result.cached is not None and result.case.id not in bad]
    data = _divided(study, site, home, usable, findings, found.cases)
    if insist:
        _refuse(study, site, data)
    return data


@dataclass(frozen=True)
class _Result:
    case: Case
    findings: tuple[Finding, ...]
    cached: CachedCase | None = None
    meta: Meta | None = None


def _case(case: Case, *, study: Study, labels: SiteLabels, cache: Path, memory: Memory) -> _Result:
    """One case: from the cache if it is there, else read, checked and prepared."""
    if case.label is None:
        return _Result(case, (no_label(case),))
    try:
        images = tuple(memory.digest(source) for source in case.images)
        label = memory.digest(case.label)
        key = key_of(study, labels, has_names(case.label), images, label)
    except DataError as error:
        return _Result(case, (unreadable(case, error),))
    except OSError as error:
        lost = DataError(f"{error.filename}: cannot be read ({error.strerror}). Check the path and its permissions.")
        return _Result(case, (unreadable(case, lost),))
    folder = cached.folder_of(cache, key)
    errors: Sequence[Finding] = ()
    if not cached.is_complete(folder):
        errors = memory.findings(key, case) or make(case, study, labels, folder)
    if errors:
        memory.keep(key, case, errors)
        return _Result(case, tuple(errors))
    meta = cached.meta_in(folder)
    odd = tuple(check_kept(case, meta, study))
    if meta["unlabelled"]:
        # Trained on as it is, the case would teach that these structures are background.
        what = f"{case.label}: {', '.join(meta['unlabelled'])} is not annotated at this site"
        return _Result(case, (*odd, finding("partly-labelled", case.id, what)), meta=meta)
    own = CachedCase(case.id, case.patient, folder, meta["content"], meta["image"])
    return _Result(case, odd, own, meta)


def _excluded(out: Mapping[str, Sequence[Case]], site: SiteConfig) -> list[Finding]:
    """`excluded`: the site leaves the case out; `excluded-unknown`: it has no such case, perhaps a slip of the pen."""
    findings = []
    for name, cases in out.items():
        for case in cases:
            known = "" if name in case.names else f" (excluded as {name})"
            findings.append(finding("excluded", case.id, f"left out by the site{known}: {site.excluded[name]}"))
        if not cases:
            findings.append(finding("excluded-unknown", "", f"the case {name} that is excluded does not exist"))
    return findings


def _divided(study: Study, site: SiteConfig, home: Path, usable: Sequence[CachedCase],
             findings: tuple[Finding, ...], found: tuple[Case, ...]) -> SiteData:  # fmt: skip
    parts = split((c.patient for c in usable), study.evaluation.seed, study.evaluation, use=site.use, home=home)
    train, validation, test = (
        tuple(c for c in usable if parts[c.patient] == part) for part in ("train", "validation", "test")
    )
    return SiteData(train, validation, test, findings, found)


def _refuse(study: Study, site: SiteConfig, data: SiteData) -> None:
    errors = [finding for finding in data.findings if finding.severity == "error"]
    if errors and study.data.bad_cases == "refuse":
        raise DataError(
            f"site {site.name}: {len(errors)} problem(s), and the study refuses bad cases:\n"
            f"{_listed(errors, len(errors))}"
        )
    trains = site.use == "train" and study.trains
    if not (data.train if trains else data.usable):
        purpose = "for training" if trains else "for testing"
        raise DataError(
            f"site {site.name}: no case of {site.data} can be used {purpose} ({len(data.usable)} usable, "
            f"{len(data.findings)} finding(s)). {_listed(_worst_first(data.findings), 5) or 'Add annotated cases.'}"
        )


def _worst_first(findings: Sequence[Finding]) -> list[Finding]:
    order = ("error", "warning", "info")
    return sorted(findings, key=lambda found: order.index(found.severity))


def _listed(findings: Sequence[Finding], most: int) -> str:
    lines = [f"  {f.case}: {f.what}. {f.remedy}" for f in findings[:most]]
    more = len(findings) - most
    return "\n".join(lines) + (f"\n  … and {more} more" if more > 0 else "")
