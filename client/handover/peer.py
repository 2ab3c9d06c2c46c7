"""Who is at the other end of a Unix socket, as the kernel says: nothing of it is the caller's word."""

import errno
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from common.errors import FedscanError

_PEERGROUPS = 59  # SO_PEERGROUPS of linux/socket.h, which Python does not name
_CRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
_MOST = 1024  # bytes that Python asks the kernel for: 256 groups
_OVERFLOW = Path("/proc/sys/kernel/overflowuid")


@dataclass(frozen=True)
class Caller:
    """A process at the other end.

    Attributes:
        uid: Its user's number.
        name: Its user's name; `uid-N` where this machine has none for it.
        groups: Numbers of its groups.
    """

    uid: int
    name: str
    groups: frozenset[int]


class StrangerError(FedscanError):
    """Whoever calls may not ask the trainer anything."""


def supported() -> bool:
    """Whether this system tells who calls (Linux does)."""
    return hasattr(socket, "SO_PEERCRED")


def caller(connection: socket.socket) -> Caller:
    """Who is at the other end of `connection`, as of the moment at which it connected; raises StrangerError."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CRED.size)
    _, uid, gid = _CRED.unpack(raw)
    if uid == _unseen() and uid != os.getuid():
        raise StrangerError(
            "this trainer cannot see whose process calls: an ordinary user has started it with fedscan site start, and "
            "the system then shows it no user but its own. For several operators run link and trainer as services "
            "(deploy/)"
        )
    name = user_name(uid)
    return Caller(uid, name, frozenset({gid, *_more_groups(connection, name, gid)}))


def _more_groups(connection: socket.socket, name: str, gid: int) -> list[int]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _MOST)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return os.getgrouplist(name, gid)
    return [number for (number,) in struct.iter_unpack("I", raw)]


def user_name(uid: int) -> str:
    """A user's name; `uid-N` where this machine has none, as in a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def group_number(name: str) -> int:
    """A group's number; raises FedscanError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit():
            return int(name)
        raise FedscanError(
            f"site.yaml: operators: group: this machine has no group {name}; make it with: groupadd --system {name}"
        ) from None


def _unseen() -> int:
    """The number that stands for every user that this process cannot see (user_namespaces(7))."""
    try:
        return int(_OVERFLOW.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 65534
