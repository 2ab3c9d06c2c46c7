"""The task `unpack`: the DICOM files of a zip archive, under names of our own. For child processes (`worker`)."""

import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from client.data.dicom import limits
from client.data.dicom.parse import may_be_dicom
from client.data.dicom.problems import Unreadable

_ENCRYPTED = 1
_PART = 2**20
_HEAD = 132


def unpack(archive: str, into: str) -> dict[str, Any]:
    """Write the entries that begin as DICOM files do to `into`/000001.dcm, ….

    The names within the archive are not used. Entries are checked against `limits` before and while they are unpacked.

    Args:
        archive: A zip file.
        into: An empty folder.

    Returns:
        `files`: how many were written.

    Raises:
        Unreadable: "damaged", "too-large" or "unsupported" (encrypted).
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check(entries, shutil.disk_usage(into).free)
            count = 0
            for entry in entries:
                if PurePosixPath(entry.filename).name.upper() != "DICOMDIR":
                    count += _extract(opened, entry, Path(into) / f"{count + 1:06d}.dcm")
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError) as error:
        raise Unreadable("damaged", f"zip archive, {type(error).__name__}") from None
    return {"files": count}


def _check(entries: list[zipfile.ZipInfo], free: int) -> None:
    if len(entries) > limits.ZIP_ENTRIES:
        raise Unreadable("too-large", f"{len(entries)} entries")
    total = sum(entry.file_size for entry in entries)
    if total > min(limits.ZIP_BYTES, free):
        raise Unreadable("too-large", f"{total / 1e9:.3g} GB unpacked, {free / 1e9:.3g} GB are free")
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise Unreadable("unsupported", "an encrypted archive")
        if entry.file_size > _PART and entry.file_size > limits.ZIP_RATIO * max(1, entry.compress_size):
            raise Unreadable("too-large", f"an entry that grows {entry.file_size // max(1, entry.compress_size)} times")


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> int:
    """1 if the entry was written, 0 if it is no DICOM file."""
    with opened.open(entry) as source:
        head = source.read(_HEAD)
        if not may_be_dicom(head):
            return 0
        left = entry.file_size - len(head)
        with target.open("xb") as out:
            out.write(head)
            while part := source.read(_PART):
                left -= len(part)
                if left < 0:
                    raise Unreadable("damaged", "zip archive, an entry larger than it says")
                out.write(part)
    # Equal archives give equal files, also to what looks at the time of a file.
    os.utime(target, (0, 0))
    return 1
