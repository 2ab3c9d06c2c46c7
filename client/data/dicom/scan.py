"""The one way into a folder of DICOM: what is there, what can be read, and why the rest cannot."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from client.data.dicom import findings as say
from client.data.dicom.files import Listed, walk
from client.data.dicom.index import Index
from client.data.dicom.objects import Item, Scan
from client.data.dicom.problems import REASONS, Unreadable
from client.data.dicom.records import Header, Refusal
from client.data.dicom.stacks import Entry, stacks_of
from client.data.dicom.workers import Workers, shared_workers
from client.data.volume import Finding
from common.errors import DataError

Progress = Callable[[int, int], None]

# Files per request: enough that the pipes cost nothing, few enough that all children have work.
_BATCH = 32
_SECONDS_PER_BATCH = 60.0
_SECONDS_ALONE = 30.0
_SECONDS_PER_ARCHIVE = 1800.0
_PART, _DAY = "part-", 86_400
# Names the archive in the folder of what it held; hidden, so that it is not taken for a file of the archive.
_ORIGIN = ".archive"
# Endings of files that ought to be DICOM: one that is not is worth a finding.
ENDINGS = (".dcm", ".dicom", ".ima")


def scan(folder: Path, *, index: Path | None = None, unpacked: Path | None = None, workers: Workers | None = None,
         progress: Progress | None = None) -> Scan:  # fmt: skip
    """What `folder` holds; headers only, and nothing in it is changed.

    Args:
        folder: A folder, or one DICOM file.
        index: File in which headers are kept from run to run; at the site. None keeps nothing.
        unpacked: Folder for the DICOM files of zip archives; at the site. Stacks of archives can be read as long as
            it exists; what it holds of archives that are gone or have changed is removed. None: archives are named by a
            finding, and left out.
        workers: The child processes; by default those of this process.
        progress: Called with (files done, files in all) in the caller's thread.

    Raises:
        DataError: There is no such folder or file.
    """
    if not folder.exists():
        raise DataError(f"{folder}: no such folder or file. Check the path.")
    workers = workers or shared_workers()
    listing = walk(folder)
    found: list[Finding] = []
    files = list(listing.files)
    if unpacked is not None:
        _forget(unpacked)
    for archive in listing.archives:
        try:
            files += _unpacked(archive, unpacked, workers)
        except Unreadable as error:
            found.append(say.archive(archive.file, str(error)))
    if listing.outside:
        found.append(say.outside(listing.outside))
    if listing.closed:
        found.append(say.refused("missing", "no permission", listing.closed))
    roots = {folder.resolve(), *(listed.file.parent for listed in files[len(listing.files) :])}
    entries, refusals = _read(files, roots, index, workers, progress)
    found += _refused(refusals)
    stacks, odd = stacks_of(_compared([entry for entry in entries if entry.header.kind == "image"], workers))
    items = tuple(_item(entry) for entry in entries if entry.header.kind != "image")
    return Scan(tuple(stacks), items, tuple(found + odd))


def _read(files: Sequence[Listed], roots: Iterable[Path], index: Path | None, workers: Workers,
          progress: Progress | None) -> tuple[list[Entry], list[tuple[Path, Refusal]]]:  # fmt: skip
    """The header of each file, or why it has none; from the index where the file is the one that was seen."""
    entries: list[Entry] = []
    refusals: list[tuple[Path, Refusal]] = []

    def take(listed: Listed, record: Any) -> None:
        checked = _checked(record)
        if isinstance(checked, Header):
            entries.append(Entry(listed.file, listed.size, listed.changed, checked))
        else:
            refusals.append((listed.file, checked))

    with Index(index) as memory:
        known = {path: seen for root in roots for path, seen in memory.known(root).items()}
        new = []
        for listed in files:
            size, changed, record = known.pop(str(listed.file), (0, 0, {}))
            if record and (size, changed) == (listed.size, listed.changed):
                take(listed, record)
            else:
                new.append(listed)
        done = len(files) - len(new)
        for batch in _asked(new, workers):
            for listed, record in batch:
                take(listed, record)
            memory.keep([pair for pair in batch if _lasting(pair[1])], ())
            done += len(batch)
            if progress:
                progress(done, len(files))
        memory.keep((), known)
    entries.sort(key=lambda entry: str(entry.file))
    return entries, sorted(refusals, key=lambda pair: str(pair[0]))


def _asked(files: Sequence[Listed], workers: Workers) -> Iterator[list[tuple[Listed, Any]]]:
    """Batches of files with their records, as they are done."""
    batch = max(1, min(_BATCH, -(-len(files) // (2 * workers.number))))
    batches = [files[start : start + batch] for start in range(0, len(files), batch)]
    with ThreadPoolExecutor(workers.number) as pool:
        futures = [pool.submit(_headers, batch, workers) for batch in batches]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _headers(files: Sequence[Listed], workers: Workers) -> list[tuple[Listed, Any]]:
    """The records of some files; a batch that costs a child its life is halved, so that only one file is lost."""
    seconds = _SECONDS_PER_BATCH if len(files) > 1 else _SECONDS_ALONE
    try:
        records = workers.ask("headers", seconds=seconds, paths=[str(listed.file) for listed in files])["headers"]
        return list(zip(files, records, strict=True))
    except Unreadable as error:
        if len(files) == 1:
            return [(files[0], Refusal(reason=error.reason, what=error.what).model_dump())]
    except (KeyError, TypeError, ValueError):
        if len(files) == 1:
            return [(files[0], Refusal(reason="crashed").model_dump())]
    middle = len(files) // 2
    return _headers(files[:middle], workers) + _headers(files[middle:], workers)


def _compared(images: Sequence[Entry], workers: Workers) -> list[Entry]:
    """The images; where several files claim to be one instance, each with the digest of its pixels."""
    claims = Counter(entry.header.instance for entry in images)

    def compared(entry: Entry) -> Entry:
        if claims[entry.header.instance] < 2:
            return entry
        try:
            digest = workers.ask("digest", seconds=_SECONDS_ALONE, path=str(entry.file))["digest"]
        except Unreadable:
            digest = str(entry.file)  # Equal to no other: what cannot be compared is no copy.
        return replace(entry, pixels=str(digest))

    return [compared(entry) for entry in images]


def _checked(record: Any) -> Header | Refusal:
    """What a child has answered is not believed."""
    try:
        if "reason" not in record:
            return Header.model_validate(record)
        refusal = Refusal.model_validate(record)
        return refusal if refusal.reason in REASONS else Refusal(reason="damaged")
    except (ValidationError, TypeError):
        return Refusal(reason="damaged")


def _lasting(record: Any) -> bool:
    """Whether the same file would be answered the same next time."""
    return record.get("reason") not in ("too-slow", "crashed", "missing", "changed")


def _refused(refusals: Sequence[tuple[Path, Refusal]]) -> list[Finding]:
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for file, refusal in refusals:
        if refusal.reason != "not-dicom" or file.suffix.lower() in ENDINGS:
            groups[refusal.reason, refusal.what].append(file)
    return [say.refused(reason, what, files) for (reason, what), files in groups.items()]


def _unpacked(archive: Listed, into: Path | None, workers: Workers) -> list[Listed]:
    """The DICOM files of an archive, which is unpacked once."""
    if into is None:
        raise Unreadable("unsupported", "zip; `fedscan data check` and `prepare` unpack it")
    folder = into / _folder_of(archive)
    if not folder.is_dir():
        into.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=_PART, dir=into))
        try:
            workers.ask("unpack", seconds=_SECONDS_PER_ARCHIVE, archive=str(archive.file), into=str(scratch))
            (scratch / _ORIGIN).write_bytes(os.fsencode(archive.file))
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return list(walk(folder).files)


def _folder_of(archive: Listed) -> str:
    return hashlib.sha256(os.fsencode(f"{archive.file}\x1f{archive.size}\x1f{archive.changed}")).hexdigest()[:16]


def _forget(unpacked: Path) -> None:
    """Remove what archives held that are gone or have changed: copies of scans must not outlive them."""
    for folder in unpacked.iterdir() if unpacked.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # Another process has removed it.
            # What is being unpacked just now is not a day old.
            busy = folder.name.startswith(_PART) and time.time() - folder.stat().st_mtime < _DAY
            if not busy and not _accounted_for(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _accounted_for(folder: Path) -> bool:
    """Whether the archive whose files lie in `folder` is still there, and the same."""
    try:
        archive = Path(os.fsdecode((folder / _ORIGIN).read_bytes()))
        state = archive.stat()
    except OSError:
        return False
    return folder.name == _folder_of(Listed(archive, state.st_size, state.st_mtime_ns))


def _item(entry: Entry) -> Item:
    header = entry.header
    return Item(
        file=entry.file,
        kind=header.kind,
        modality=header.modality,
        sop_class=header.sop_class,
        instance=header.instance,
        series=header.series,
        study=header.study,
        patient=header.whose,
        description=header.description,
        frame_of_reference=header.frame_of_reference,
        referenced_series=header.referenced_series,
        referenced_instances=header.referenced_instances,
    )
