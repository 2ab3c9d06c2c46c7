"""Several volumes in one series are told apart: by a mark that the headers carry, else by their order in time.

A mark tells volumes apart if each of its values has one slice at each place (or several, which other marks tell
apart). Moments and numbers differ from slice to slice within one volume, so there the order counts: the first slice
at each place belongs to the first volume, and so on.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from client.data.dicom.records import Mark

# Marks whose values name volumes -> what the volume is then called. The more telling first.
_VALUES = {
    "stack": "stack", "type": "type", "frame_type": "type", "component": "type", "b": "b", "direction": "dir",
    "echo": "echo", "te": "te", "ti": "ti", "flip": "flip", "time": "t", "acquisition": "acq", "kv": "kv",
    "kernel": "kernel",
}  # fmt: skip
# Marks whose order counts.
_MOMENTS = ("trigger", "reference_time", "acquired", "content")
_NUMBER = "number"
# Where files are missing, a volume must still have this share of the places.
_SHARE = 0.5


@dataclass(frozen=True)
class Member:
    """One slice among others of its orientation and size.

    Attributes:
        index: The caller's number for it.
        place: Of its place along the normal, see `geometry.places`.
        marks: See `header.MARKS`.
    """

    index: int
    place: int
    marks: Mapping[str, Mark]


@dataclass(frozen=True)
class Part:
    """One volume.

    Attributes:
        name: What tells it from the others; empty if it is alone.
        members: One per place, unless the volumes could not be told apart.
    """

    name: str
    members: tuple[Member, ...]


def tell_apart(members: Sequence[Member], even: Callable[[Sequence[Member]], bool]) -> tuple[list[Part], str]:
    """The volumes among `members`, and by what they were told apart.

    Args:
        members: Slices of one series, orientation and size.
        even: Whether slices, each at a place of its own, lie at constant distances.

    Returns:
        The parts in the order of their names, and the mark ("" for one volume, "number" if only the instance number
        tells). Where nothing tells, one part in which places hold several slices.
    """
    alone = [Part("", tuple(members))], ""
    if _single(members):
        return alone if even(members) else _by_evenness(members, even) or alone
    for split in (_by_values, _by_moments, _by_values_with_gaps):
        if found := split(members, list(_VALUES)):
            return found
    if found := _by_evenness(members, even):
        return found
    by_number = _by_order(members, _NUMBER, "n")
    return (by_number, _NUMBER) if by_number else alone


_Split = tuple[list[Part], str] | None


def _single(members: Sequence[Member]) -> bool:
    return len({m.place for m in members}) == len(members)


def _groups(members: Sequence[Member], mark: str) -> dict[Hashable, list[Member]]:
    """Members by the value of a mark; empty if one has none or all have the same."""
    found: dict[Hashable, list[Member]] = defaultdict(list)
    for member in members:
        if mark not in member.marks:
            return {}
        found[member.marks[mark]].append(member)
    return dict(found) if len(found) > 1 else {}


def _by_values(members: Sequence[Member], marks: Sequence[str]) -> _Split:
    """Each value of a mark has equally many slices at every place; where more than one, another mark divides it."""
    if _single(members):
        return [Part("", tuple(members))], ""
    places = {m.place for m in members}
    for number, mark in enumerate(marks):
        groups = _groups(members, mark)
        if not groups or not all(_covers(group, places) for group in groups.values()):
            continue
        rest = marks[number + 1 :]
        inner = [_by_values(group, rest) or _by_moments(group, rest) for group in groups.values()]
        if all(inner):
            return _joined(mark, groups, [i[0] for i in inner if i]), mark
    return None


def _covers(group: Sequence[Member], places: set[int]) -> bool:
    counts = Counter(m.place for m in group)
    return len(counts) == len(places) and len(set(counts.values())) == 1


def _by_moments(members: Sequence[Member], marks: Sequence[str]) -> _Split:
    for mark in _MOMENTS:
        if parts := _by_order(members, mark, "t"):
            return parts, mark
    return None


def _by_order(members: Sequence[Member], mark: str, word: str) -> list[Part]:
    """The n-th slice at every place, in the order of a mark that differs within each place."""
    stacked: dict[int, list[Member]] = defaultdict(list)
    for member in members:
        if mark not in member.marks:
            return []
        stacked[member.place].append(member)
    several = {len(group) for group in stacked.values()}
    if len(several) != 1 or several == {1}:
        return []
    for group in stacked.values():
        group.sort(key=lambda m: float(m.marks[mark]))
        if len({m.marks[mark] for m in group}) < len(group):
            return []
    count = several.pop()
    width = len(str(count))
    return [
        Part(f"{word}={n + 1:0{width}d}", tuple(group[n] for _, group in sorted(stacked.items()))) for n in range(count)
    ]


def _by_values_with_gaps(members: Sequence[Member], marks: Sequence[str]) -> _Split:
    """As `_by_values` where files are missing: no value has two slices at a place, and each has most of the places."""
    if _single(members):
        return None
    places = len({m.place for m in members})
    for mark in marks:
        groups = _groups(members, mark)
        if groups and all(_single(g) and len(g) >= max(2, _SHARE * places) for g in groups.values()):
            return _joined(mark, groups, [[Part("", tuple(g))] for g in groups.values()]), mark
    return None


def _by_evenness(members: Sequence[Member], even: Callable[[Sequence[Member]], bool]) -> _Split:
    """Volumes of other places in one series: each value of a mark has slices at constant distances."""
    for mark in _VALUES:
        groups = _groups(members, mark)
        if groups and all(len(g) > 2 and _single(g) and even(g) for g in groups.values()):
            return _joined(mark, groups, [[Part("", tuple(g))] for g in groups.values()]), mark
    return None


def _joined(mark: str, groups: Mapping[Hashable, Sequence[Member]], inner: Sequence[Sequence[Part]]) -> list[Part]:
    names = _names(mark, list(groups))
    parts = [
        Part(f"{name},{part.name}" if part.name else name, part.members)
        for name, group in zip(names, inner, strict=True)
        for part in group
    ]
    order = {name: number for number, name in enumerate(sorted(names, key=_natural))}
    return sorted(parts, key=lambda part: (order[part.name.split(",")[0]], part.name))


def _names(mark: str, values: Sequence[Hashable]) -> list[str]:
    word = _VALUES[mark]
    if word == "dir":
        order = sorted(values, key=str)
        return [f"dir={order.index(value) + 1:0{len(str(len(order)))}d}" for value in values]
    if word == "type":
        return _differing([str(value) for value in values])
    if all(isinstance(value, float | int) for value in values):
        width = max(len(f"{value:g}") for value in values) if word == "t" else 0
        return [f"{word}={f'{value:g}':0>{width}}" for value in values]
    return [f"{word}={_plain(str(value))}" for value in values]


def _differing(types: Sequence[str]) -> list[str]:
    """Of image types such as ORIGINAL\\PRIMARY\\M\\ND only the words that differ."""
    words = [value.split("\\") for value in types]
    common = set.intersection(*(set(w) for w in words))
    return [f"type={_plain('/'.join(w for w in own if w not in common)) or 'none'}" for own in words]


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._/+-]+", "_", text)[:48]


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """Numbers within names in the order of their values."""
    return [(not part.replace(".", "", 1).isdigit(), float(part) if part.replace(".", "", 1).isdigit() else 0.0, part)
            for part in re.split(r"(\d+\.?\d*)", name)]  # fmt: skip
