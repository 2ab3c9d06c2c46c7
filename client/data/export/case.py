"""One case of an export: all its files clean in one folder, or none of them."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from client.data.dicom.problems import REASONS, Unreadable
from client.data.dicom.workers import Workers
from client.data.export import pictures, volumes
from client.data.export.faces import face
from client.data.export.policy import ExportOptions, Policy
from client.data.readers import suffix
from client.data.secret import Secret
from client.data.structures import segments_in
from client.data.volume import Case, Finding, Source, Stack
from common.disk import not_written
from common.errors import DataError

# Reason -> what is the matter, what to do.
REFUSALS = {
    "face": ("may show a face", "Remove the face first, or export with --faces if your rules allow it."),
    "face-unknown": (
        "is large enough to show a face, and does not say which part of the body it shows",
        "Look at it; if there is no face, export with --faces.",
    ),
    "burned-in": ("says that there is text in its pixels (0028,0301)", "Mask the text first, or exclude the case."),
    "burned-in-unknown": (
        "is of a kind that often shows text, and does not say that it has none",
        "Look at it; if there is no text, export with --inspected.",
    ),
    "modality": ("is of a kind that is not exported", "Exclude the case."),
    "palette": ("has pixels that are colours of a palette", "Exclude the case."),
    "format": ("is in a format that is not exported", "Convert it to NIfTI or PNG."),
}  # fmt: skip
# Files that a child cleans in one go.
_BATCH = 16
_LONGEST = 3650  # days


@dataclass(frozen=True)
class Shared:
    """What all cases of an export share.

    Attributes:
        options: What is kept beyond the profile.
        secret: Of the site's pseudonyms.
        software: Name and version.
        workers: Children that parse DICOM.
    """

    options: ExportOptions
    secret: Secret
    software: str
    workers: Workers


@dataclass(frozen=True)
class CaseExport:
    """What became of one case.

    Attributes:
        name: Its pseudonym.
        patient: The patient's.
        images: Paths in the export, one per channel: files, or folders of DICOM files.
        label: Path in the export, or empty.
        files: Path in the export -> SHA-256.
        removed: DICOM elements left out.
        options: Codes of what was done.
        refused: Why it stayed, by a word; empty if it left.
        finding: The same for people.
    """

    name: str
    patient: str
    images: tuple[str, ...] = ()
    label: str = ""
    files: dict[str, str] = field(default_factory=dict)
    removed: int = 0
    options: tuple[str, ...] = ()
    refused: str = ""
    finding: Finding | None = None

    def text(self, state: str) -> str:
        """To be found again by `read` as long as `state` is the same."""
        return json.dumps({"state": state, "case": asdict(self)})

    @classmethod
    def read(cls, path: Path, state: str) -> "CaseExport | None":
        """What `text` gave, or None if it is not there or of another state."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["state"] != state:
                return None
            case = stored["case"]
            lists = {name: tuple(case[name]) for name in ("images", "options")}
            return cls(**{**case, **lists})
        except (OSError, ValueError, KeyError, TypeError):
            return None


class _Refused(Exception):  # noqa: N818
    def __init__(self, reason: str, source: Source) -> None:
        self.reason, self.source = reason, source


def export_case(case: Case, name: str, out: Path, scratch: Path, work: Shared) -> CaseExport:
    """Clean copies of the files of `case` in OUT/PATIENT/NAME.

    Args:
        case: The case.
        name: Its pseudonym.
        out: The export.
        scratch: Where they are made before they get their place, on the same disk.
        work: What all cases share.

    Raises:
        StorageError: The disk is full.
    """
    patient = "P-" + work.secret.name(f"patient\x1f{case.patient}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for image in () if work.options.faces else case.images:
            if reason := face(image):
                raise _Refused(reason, image)
        made = _Copies(scratch, work, _policy(case, patient, work))
        images = tuple(made.add(source, str(number), False) for number, source in enumerate(case.images))
        label = made.add(case.label, "label", True) if case.label else ""
        place = out / patient / name
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(place)
    except _Refused as refusal:
        return _stays(case, name, patient, refusal.reason, refusal.source)
    except DataError as error:
        return _stays(case, name, patient, "unreadable", error)
    except OSError as error:
        raise not_written(scratch, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    inside = f"{patient}/{name}/"
    return CaseExport(
        name, patient, tuple(inside + image for image in images), label and inside + label,
        {inside + path: digest for path, digest in made.files.items()}, made.removed, tuple(sorted(made.options)),
    )  # fmt: skip


class _Copies:
    """Clean copies in one folder, and what was done for them."""

    def __init__(self, folder: Path, work: Shared, policy: Policy) -> None:
        self._folder, self._work, self._policy = folder, work, policy
        folder.mkdir(parents=True)
        self.files: dict[str, str] = {}
        self.options: set[str] = set()
        self.removed = 0

    def add(self, source: Source, name: str, label: bool) -> str:
        """Copy an image or a label; where it now lies in the folder."""
        if isinstance(source, Stack):
            return self._dicom(source.paths, source, name)
        if suffix(source) is None:
            return next(iter(self._dicom_files((source,), source, "")))
        return self._file(source, name, label)

    def _dicom(self, paths: tuple[Path, ...], source: Source, name: str) -> str:
        self._dicom_files(paths, source, f"{name}/")
        return name

    def _dicom_files(self, paths: tuple[Path, ...], source: Source, inside: str) -> list[str]:
        into = self._folder / inside
        into.mkdir(exist_ok=True)
        names = []
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            size = sum(path.stat().st_size for path in batch if path.is_file())
            answer = self._work.workers.ask(
                "export", seconds=120 + size / 2**20, sources=[str(path) for path in batch], into=str(into),
                policy=self._policy.values(),
            )  # fmt: skip
            for path, done in zip(batch, answer["files"], strict=True):
                if "refused" in done:
                    raise _Refused(done["refused"], path if len(paths) == 1 else source)
                names.append(inside + done["name"])
                self.files[inside + done["name"]] = done["sha256"]
                self.removed += done["removed"]
                self.options |= set(done["options"])
        return names

    def _file(self, source: Path, name: str, label: bool) -> str:
        ending = suffix(source) or ""
        clean = CLEANERS.get(ending)
        if clean is None:
            raise _Refused("format", source)
        if ending.endswith("nrrd") or ending == ".nhdr":
            clean = partial(volumes.clean_nrrd, rules=self._work.options.rules)
            ending = ".nrrd" if ending == ".nhdr" else ending
        target = self._folder / f"{name}{ending}"
        clean(source, target, label)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
            self.files[target.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return target.name


# File name ending -> what makes a clean copy: (source, target, label).
CLEANERS: dict[str, Any] = {
    ".nii": volumes.clean_nifti, ".nii.gz": volumes.clean_nifti,
    ".nrrd": volumes.clean_nrrd, ".seg.nrrd": volumes.clean_nrrd, ".nhdr": volumes.clean_nrrd,
    ".png": pictures.clean_png, ".jpg": pictures.clean_jpeg, ".jpeg": pictures.clean_jpeg,
    ".tif": pictures.clean_tiff, ".tiff": pictures.clean_tiff,
}  # fmt: skip


def _policy(case: Case, patient: str, work: Shared) -> Policy:
    options = work.options
    shift = work.secret.number(f"days\x1f{case.patient}") % _LONGEST + 1
    return Policy(
        secret=work.secret.key.hex(), patient=patient, days=shift if options.dates == "shift" else 0,
        characteristics=options.characteristics, inspected=options.inspected,
        structures=_structures(case.label, work), codes=dict(options.codes),
        known=tuple(sorted(_uids(case))), software=work.software,
    )  # fmt: skip


def _structures(label: Path | None, work: Shared) -> dict[str, list[str]]:
    """What the structures of a DICOM label are to the study, see `Policy.structures`."""
    if label is None or suffix(label) is not None:
        return {}
    try:
        segments = segments_in(label, work.workers)
    except DataError:  # What this cannot read may be copied all the same, without names.
        return {}
    rules = work.options.rules
    labels = {str(segment.number): rules.label_of(segment) for segment in segments}
    return {number: [name, rules.codes.get(name, "")] for number, name in labels.items() if name}


def _uids(case: Case) -> Collection[str]:
    stacks = [source for source in case.images if isinstance(source, Stack)]
    return {uid for s in stacks for uid in (*s.instances, s.series, s.study, *s.frame_of_reference)}


def _stays(case: Case, name: str, patient: str, reason: str, cause: Source | DataError) -> CaseExport:
    if isinstance(cause, Unreadable):
        reason, what, remedy = cause.reason, f"{case.images[0]}: {cause}", "Copy or export the file again."
    elif isinstance(cause, DataError):
        what, _, remedy = str(cause).partition(". ")
    else:
        why, remedy = REFUSALS.get(reason) or (REASONS.get(reason, reason), "Copy or export the file again.")
        what = f"{cause}: {why}"
    finding = Finding(f"export-{reason}", "error", case.id, what, remedy)
    return CaseExport(name, patient, refused=reason, finding=finding)
