"""Memory that is given back: for the process that only serves."""

import ctypes

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of glibc's malloc.h
_LARGE = 1 << 20


def give_back() -> None:
    """Let glibc return every freed block of 1 MiB or more to the system at once, and use two arenas for all threads.

    Otherwise each of the threads that answer sites keeps what its largest object took, and the memory of a coordinator
    grows with its sites. Where the C library is another one, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 2)
        mallopt(_MMAP_THRESHOLD, _LARGE)
