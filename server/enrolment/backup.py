"""Backup and restore of a coordinator's identity: one tar file with the keys, certificates and enrolled sites.

The offline keys in it are encrypted as they are in the home (and missing when they lie elsewhere); the online keys are
not, so the file is made with mode 0600 and must be kept like a key. Runs are not in it.
"""

import os
import tarfile
from pathlib import Path

from common.errors import IdentityError
from common.keys import PRIVATE, private_folder
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled

PARTS = ("coordinator.json", "authority.pem", "offline", "online", "enrolment")
MAX_BYTES = 256 * 1024 * 1024


def back_up(coordinator: Coordinator, file: Path) -> list[str]:
    """Write the identity to `file`, which must not exist yet.

    Returns:
        The names of what is in it.

    Raises:
        IdentityError: The file exists or cannot be written, or the identity is not whole.
    """
    coordinator.check()
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError:
        raise IdentityError(f"{file} exists already; choose another name") from None
    except OSError as error:
        raise IdentityError(f"{file}: cannot be written ({error.strerror})") from None
    with os.fdopen(handle, "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for part in PARTS:
                if (coordinator.home / part).exists():
                    tar.add(coordinator.home / part, arcname=part)
            names = tar.getnames()
        raw.flush()
        os.fsync(raw.fileno())
    return names


def restore(file: Path, home: Path) -> Coordinator:
    """Put the identity in `file` into `home`, which must not have one, and check that it is whole.

    Raises:
        IdentityError: There is an identity already, or the file is not a whole backup.
    """
    for part in PARTS:
        if (home / part).exists():
            raise IdentityError(f"{home / part} exists already: keys are never written over. Choose another --home")
    private_folder(home)
    try:
        with tarfile.open(file, mode="r:") as tar:
            members = tar.getmembers()
            if sum(m.size for m in members) > MAX_BYTES or any(m.name.partition("/")[0] not in PARTS for m in members):
                raise IdentityError(f"{file} is not a backup of a coordinator")
            # The filter refuses links and names that lead out of the folder (PEP 706).
            tar.extractall(home, members, filter="data")
    except FileNotFoundError:
        raise IdentityError(f"{file}: no such file") from None
    except (tarfile.TarError, OSError) as error:
        raise IdentityError(f"{file} cannot be unpacked: {error}") from None
    for path in home.rglob("*"):
        if path.is_dir():
            private_folder(path)
    coordinator = Coordinator(home)
    coordinator.check()
    damaged = Enrolled(coordinator.enrolment_folder).damaged
    if damaged:
        raise IdentityError("\n".join(damaged))
    return coordinator
