"""Which of a site's cases are left out: by name, and by what they consist of.

The name of a DICOM volume may only say its place among others (`image=2`, `t=3`): when a file of the series is deleted
or added, it comes to mean another volume. So an exclusion also keeps marks of what the case consisted of: hashes of the
SOP instances and frames of its slices, and of the contents of files of other formats. A mark tells nothing of a UID.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from client.data.volume import Case, Source, Stack
from client.site import SiteConfig

Digest = Callable[[Path], str]

_DIGITS = 16
# Names of volumes that count: pictures, moments, numbers and directions in their order, parts, and repeated names.
_BY_PLACE = re.compile(r"(^|,)(image|t|n|dir|part)=|;\d+$")


def marks_of(images: Sequence[Source], digest: Digest) -> frozenset[str]:
    """What tells these images from others, whatever they are called.

    Args:
        images: Of one case.
        digest: SHA-256 of a file, in hex.

    Raises:
        OSError: A file cannot be read.
    """
    return frozenset(mark for image in images for mark in _marks(image, digest))


def left_out(cases: Sequence[Case], site: SiteConfig, digest: Digest) -> dict[str, tuple[Case, ...]]:
    """Excluded name -> the cases that it leaves out; none where there is no such case.

    A case is out if it shares a mark with the excluded one, or has its name. A name that only says a place counts
    where no marks are known.

    Args:
        cases: All that were found.
        site: Says what is excluded.
        digest: SHA-256 of a file, in hex; asked only for files as large as an excluded one.
    """
    sizes = {mark.partition(":")[0] for marks in site.marks.values() for mark in marks if ":" in mark}
    own = {case.id: frozenset(_known(case, sizes, digest)) for case in cases} if site.marks else {}

    def meant(name: str, case: Case) -> bool:
        marks = site.marks.get(name)
        return name in _lasting(case) or not own[case.id].isdisjoint(marks) if marks else name in case.names

    return {name: tuple(case for case in cases if meant(name, case)) for name in site.excluded}


def remaining(cases: Sequence[Case], out: dict[str, tuple[Case, ...]]) -> list[Case]:
    """The cases that nothing in `out` (as `left_out` gives it) leaves out."""
    gone = {case.id for own in out.values() for case in own}
    return [case for case in cases if case.id not in gone]


def _marks(image: Source, digest: Digest) -> Iterator[str]:
    if isinstance(image, Path):
        yield f"{image.stat().st_size}:{digest(image)[:_DIGITS]}"
        return
    # A file with several volumes is one instance: the frame tells whose slice it is.
    for instance, frame in zip(image.instances, image.frames, strict=True):
        yield hashlib.sha256(f"{instance}\x1f{frame}".encode()).hexdigest()[:_DIGITS]


def _known(case: Case, sizes: Collection[str], digest: Digest) -> Iterator[str]:
    """The marks of `case`; a file that cannot be read has none, and is found out when the case is read."""
    for image in case.images:
        try:
            if isinstance(image, Stack) or str(image.stat().st_size) in sizes:
                yield from _marks(image, digest)
        except OSError:
            continue


def _lasting(case: Case) -> frozenset[str]:
    """The names of `case` that mean the same whatever becomes of the other volumes of its series."""
    return case.names - {s.id for s in case.images if isinstance(s, Stack) and _BY_PLACE.search(s.name)}
