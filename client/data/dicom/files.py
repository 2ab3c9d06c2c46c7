"""The files of a folder: walked by ourselves. A DICOMDIR is ignored, and links are not followed out of the folder."""

import os
from dataclasses import dataclass
from pathlib import Path

_DICOMDIR = "DICOMDIR"
_ARCHIVE = ".zip"


@dataclass(frozen=True)
class Listed:
    """A regular file.

    Attributes:
        file: Its path.
        size: Bytes.
        changed: Modification time in ns.
    """

    file: Path
    size: int
    changed: int


@dataclass(frozen=True)
class Listing:
    """The files of a folder, sorted.

    Attributes:
        files: All but archives.
        archives: Zip files.
        outside: Links that lead out of the folder.
        closed: Folders and files that cannot be read.
    """

    files: tuple[Listed, ...]
    archives: tuple[Listed, ...]
    outside: tuple[Path, ...]
    closed: tuple[Path, ...]


def walk(root: Path) -> Listing:
    """The files under `root` (or `root` itself), without hidden ones.

    A link to something inside the folder is passed over, as what it leads to is found where it lies.
    """
    root = root.resolve()
    files: list[Listed] = []
    outside: list[Path] = []
    closed: list[Path] = []
    folders = [root]
    if root.is_file():
        state = root.stat()
        files, folders = [Listed(root, state.st_size, state.st_mtime_ns)], []
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            closed.append(folder)
            continue
        for entry in found:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                if not path.resolve().is_relative_to(root):
                    outside.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file(follow_symlinks=False) and entry.name.upper() != _DICOMDIR:
                state = entry.stat(follow_symlinks=False)
                files.append(Listed(path, state.st_size, state.st_mtime_ns))
    files.sort(key=lambda listed: str(listed.file))
    archives = [listed for listed in files if listed.file.suffix.lower() == _ARCHIVE]
    plain = [listed for listed in files if listed.file.suffix.lower() != _ARCHIVE]
    return Listing(tuple(plain), tuple(archives), tuple(outside), tuple(closed))
