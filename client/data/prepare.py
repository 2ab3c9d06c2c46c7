"""From a site's files to cases ready for training: read, check, preprocess, keep on disk, split."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data import cache as cached
from client.data import checks, preprocess
from client.data.catalogue import find_cases, left_out
from client.data.labels import LabelMap, label_map
from client.data.memory import Memory
from client.data.readers import read
from client.data.split import split
from client.data.volume import CachedCase, Case, Finding, SiteData, Volume
from client.site import SiteConfig
from common.errors import DataError
from common.labels import IGNORE
from common.seeds import generator
from common.study import Study

# Part of every key: raise it when the same files would give other arrays.
FORMAT = 3
# Labelled voxels kept per case as centres for patches.
FOREGROUND = 10_000
# Each worker holds one case in memory.
_WORKERS = 4


def prepare(study: Study, site: SiteConfig, *, cache: Path, home: Path,
            progress: Callable[[int, int], None] | None = None) -> SiteData:  # fmt: skip
    """The usable cases of `site` for `study`, divided by patient.

    Cases that were prepared before, for the same plan, labels and file contents, are taken from `cache`.

    Args:
        study: Its data, plan, seed and evaluation sections are used.
        site: Where the scans are.
        cache: Folder for the arrays; may be shared by sites, studies and processes.
        home: The site's own folder: the split and the memory of file hashes are kept there.
        progress: Called with (cases done, cases in all) in the caller's thread after each case, in whatever order
            they are done: 1, 2, … to all, taken from the cache or not.

    Raises:
        DataError: No case can be used for training, a bad case and `data.bad_cases` is `refuse`, or nothing was found.
        StudyError: The site's label rules do not fit the study.
    """
    labels = label_map(study.data.labels, site.labels, study.data.ignore)
    cases = find_cases(site, len(study.data.channels), study.data.channels)
    memory = Memory(home)
    work = partial(_case, study=study, labels=labels, cache=cache, memory=memory)
    results = _without_duplicates(_each(work, cases, progress))
    memory.save()
    findings = (*left_out(site), *(finding for result in results for finding in result.findings))
    _refuse(study, site, findings)
    usable = [result.cached for result in results if result.cached is not None]
    return _divide(study, site, home, usable, findings)


@dataclass(frozen=True)
class _Result:
    case: Case
    findings: tuple[Finding, ...]
    cached: CachedCase | None = None


def _each(work: Callable[[Case], _Result], cases: Sequence[Case],
          progress: Callable[[int, int], None] | None) -> list[_Result]:  # fmt: skip
    """The result of each case, in the order of `cases`."""
    with ThreadPoolExecutor(max(1, min(_WORKERS, os.cpu_count() or 1))) as pool:
        futures = [pool.submit(work, case) for case in cases]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress:
                    progress(number, len(cases))
        finally:
            # After an error or an interrupt no further case is begun.
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def _case(case: Case, *, study: Study, labels: LabelMap, cache: Path, memory: Memory) -> _Result:
    """One case: from the cache if it is there, else read, checked and prepared."""
    if case.label is None:
        return _Result(case, (checks.no_label(case),))
    try:
        images = tuple(memory.digest(path) for path in case.images)
        key = _key(study, labels, images, memory.digest(case.label))
    except OSError as error:
        what = DataError(f"{error.filename}: cannot be read ({error.strerror}). Check the path and its permissions.")
        return _Result(case, (checks.unreadable(case, what),))
    folder = cached.folder_of(cache, key)
    errors: Sequence[Finding] = ()
    if not cached.is_complete(folder):
        errors = memory.findings(key, case) or _make(case, study, labels, folder)
    if errors:
        memory.keep(key, case, errors)
        return _Result(case, tuple(errors))
    meta = cached.meta_in(folder)
    odd = checks.warnings(case, meta, study.data.labels)
    return _Result(case, tuple(odd), CachedCase(case.id, case.patient, folder, meta["content"], meta["image"]))


def _make(case: Case, study: Study, labels: LabelMap, folder: Path) -> list[Finding]:
    """The errors of `case`; if there are none, its arrays are put in `folder`."""
    data = study.data
    try:
        images = [_flat(read(path), data.dimensions) for path in case.images]
        label = _one_channel(_flat(read(case.label or Path(), label=True), data.dimensions))
        if len(data.channels) == len(images) == 1:
            images = [_one_channel(images[0])]
        errors = checks.check_case(case, images, label, len(data.channels), data.dimensions, labels)
        if not errors:
            image = Volume(np.concatenate([v.array for v in images]), images[0].affine)
            _store(image, labels.apply(label.array[0]), study, folder)
    except DataError as error:
        return [checks.unreadable(case, error)]
    return errors


def _store(image: Volume, truth: NDArray[np.uint8], study: Study, folder: Path) -> None:
    own = preprocess.grid(image.array.shape[1:], image.affine)
    plan = preprocess.plan_grid(image, study.plan)
    raw = image.array.astype(np.float32)
    label = preprocess.resample_label(truth, own, plan)
    picture = fingerprint(raw)
    content = hashlib.sha256(picture.encode() + np.ascontiguousarray(truth).tobytes()).hexdigest()
    arrays: dict[str, NDArray[Any]] = {
        "image": preprocess.resample(preprocess.normalise(raw, study.plan.intensity), own, plan),
        "label": np.ascontiguousarray(label),
        "truth": np.ascontiguousarray(truth),
        "foreground": _foreground(label, content),
    }
    counts = [np.bincount(a.ravel(), minlength=study.classes)[1 : study.classes].tolist() for a in (truth, label)]
    meta: preprocess.Meta = {
        "image": picture, "content": content, "own": own, "plan": plan, "voxels": counts[0], "plan_voxels": counts[1],
    }  # fmt: skip
    cached.store(folder, arrays, meta)


def fingerprint(image: NDArray[np.float32]) -> str:
    """SHA-256 of the shape and the voxels `(C, *S)` of a scan as it was read, before the plan changes it.

    A scan that was copied, compressed again or saved with another header has the same fingerprint.
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image, dtype="<f4").data)
    return digest.hexdigest()


def _foreground(label: NDArray[np.uint8], content: str) -> NDArray[np.int32]:
    """`(N, dims + 1)`: up to FOREGROUND labelled voxels, alike many of each label where there are, and their labels.

    Equal contents draw the same ones.
    """
    values = [int(v) for v in np.unique(label) if v not in (0, IGNORE)]
    random = generator(0, "foreground", content)
    chosen = [np.empty((0, label.ndim + 1), dtype=np.int64)]
    for value in values:
        voxels = np.argwhere(label == value)
        wanted = min(len(voxels), FOREGROUND // len(values))
        some = voxels[np.sort(random.choice(len(voxels), wanted, replace=False))]
        chosen.append(np.column_stack([some, np.full(wanted, value)]))
    return np.concatenate(chosen).astype(np.int32)


def _key(study: Study, labels: LabelMap, images: Sequence[str], label: str) -> str:
    parts = {
        "format": FORMAT,
        "plan": study.plan.model_dump(mode="json"),
        "data": study.data.model_dump(mode="json"),
        "labels": [labels.rules, labels.grey],
        "images": list(images),
        "label": label,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _flat(volume: Volume, dimensions: int) -> Volume:
    """A volume of one slice as the picture that a 2D study needs."""
    if dimensions == 2 and volume.array.ndim == 4 and volume.array.shape[3] == 1:
        return Volume(volume.array[..., 0], volume.affine)
    return volume


def _one_channel(volume: Volume) -> Volume:
    """Grey that was saved as colour: equal channels become one."""
    first = volume.array[:1]
    return Volume(first, volume.affine) if (volume.array == first).all() else volume


def _without_duplicates(results: Sequence[_Result]) -> list[_Result]:
    """The same image under two patients could stand in training and in test: the later case is left out."""
    first: dict[str, Case] = {}
    kept = []
    for result in results:
        if result.cached is not None:
            other = first.setdefault(result.cached.image, result.case)
            if other.patient != result.case.patient:
                finding = checks.duplicate(result.case, other)
                result = replace(result, findings=(*result.findings, finding), cached=None)
        kept.append(result)
    return kept


def _refuse(study: Study, site: SiteConfig, findings: Sequence[Finding]) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and study.data.bad_cases == "refuse":
        raise DataError(
            f"site {site.name}: {len(errors)} problem(s), and the study refuses bad cases:\n"
            f"{_listed(errors, len(errors))}"
        )


def _divide(study: Study, site: SiteConfig, home: Path, usable: Sequence[CachedCase],
            findings: tuple[Finding, ...]) -> SiteData:  # fmt: skip
    parts = split((c.patient for c in usable), study.evaluation.seed, study.evaluation, use=site.use, home=home)
    train, validation, test = (
        tuple(c for c in usable if parts[c.patient] == part) for part in ("train", "validation", "test")
    )
    if not (train if site.use == "train" else usable):
        purpose = "for training" if site.use == "train" else "for testing"
        raise DataError(
            f"site {site.name}: no case of {site.data} can be used {purpose} ({len(usable)} usable, "
            f"{len(findings)} finding(s)). {_listed(findings, 5) or 'Add annotated cases.'}"
        )
    return SiteData(train, validation, test, findings)


def _listed(findings: Sequence[Finding], most: int) -> str:
    lines = [f"  {f.case}: {f.what}. {f.remedy}" for f in findings[:most]]
    more = len(findings) - most
    return "\n".join(lines) + (f"\n  … and {more} more" if more > 0 else "")
