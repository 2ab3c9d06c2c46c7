"""From headers to stacks: which slices make a volume, in which order, and what is wrong with them. Pure functions.

Slices belong together by series, size, orientation and pixel size, never by file name or instance number. They are
ordered by their positions along the normal. A volume is left out, with an error, where slices are missing or doubled,
or lie unevenly or tilted; the limits stand in `geometry`.

A gantry tilt is refused rather than kept as a sheared affine: all that follows takes the three axes of a volume for
right angles, as scanners' software does when it corrects the tilt.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.data.dicom import findings as say
from client.data.dicom import geometry, limits, volumes
from client.data.dicom.codecs import check_readable
from client.data.dicom.kinds import Kind, kind_of
from client.data.dicom.problems import Unreadable
from client.data.dicom.records import Frame, Header
from client.data.dicom.values import dtype_of
from client.data.volume import Finding, Stack, local_id


@dataclass(frozen=True)
class Entry:
    """A file and its header.

    Attributes:
        file: Where it lies.
        size: Bytes.
        changed: Modification time in ns.
        header: Its record.
        pixels: Digest of its pixels as they are stored, where another file claims to be the same instance.
    """

    file: Path
    size: int
    changed: int
    header: Header
    pixels: str = ""


@dataclass(frozen=True)
class _Slice:
    entry: Entry
    number: int  # of the frame in its file
    frame: Frame


def stacks_of(entries: Sequence[Entry]) -> tuple[list[Stack], list[Finding]]:
    """The stacks that these images make, sorted by patient, study, series and name, and what is left out or odd."""
    series: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda e: str(e.file)):
        series[entry.header.patient, entry.header.series].append(entry)
    stacks: list[Stack] = []
    found: list[Finding] = []
    for _, members in sorted(series.items()):
        made = _Series(members)
        stacks += made.stacks
        found += made.findings
    return sorted(stacks, key=lambda s: (s.patient, s.study, s.series)), found


class _Series:
    """The stacks of one series."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.stacks: list[Stack] = []
        self.findings: list[Finding] = []
        self._id = local_id(entries[0].header.series, "")
        kinds: dict[Kind, list[Entry]] = defaultdict(list)
        for entry in self._without_copies(entries):
            kinds[kind_of(entry.header)].append(entry)
        for kind, members in kinds.items():
            if kind in (Kind.SLICES, Kind.PICTURE):
                members = self._readable(members, kind)
            if not members:
                continue
            if kind == Kind.SLICES:
                self._volumes([_Slice(e, n, f) for e in members for n, f in enumerate(e.header.frames)])
            elif kind == Kind.PICTURE:
                self._pictures(members)
            else:
                self.findings.append(say.left_out(kind, self._id, members[0].file, len(members)))

    def _readable(self, entries: Sequence[Entry], kind: Kind) -> list[Entry]:
        """The files whose pixels can be read; no slices at all if one of them is not, as the volume is not whole."""
        refused: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for entry in entries:
            try:
                check_readable(entry.header.syntax)
                if entry.header.problem:
                    raise Unreadable("damaged", entry.header.problem)
            except Unreadable as error:
                refused[error.reason, error.what].append(entry.file)
        for (reason, what), files in refused.items():
            self.findings.append(say.refused(reason, what, files, self._id))
        unread = {file for files in refused.values() for file in files}
        return [e for e in entries if e.file not in unread] if kind == Kind.PICTURE or not unread else []

    def _without_copies(self, entries: Sequence[Entry]) -> list[Entry]:
        """One file per instance; several of one instance must agree."""
        first: dict[str, Entry] = {}
        copies = 0
        kept: list[Entry] = []
        for entry in entries:
            other = first.setdefault(entry.header.instance, entry)
            if other is entry or (other.header.frames, other.pixels) != (entry.header.frames, entry.pixels):
                kept.append(entry)
            else:
                copies += 1
        if copies:
            self.findings.append(say.copies(self._id, entries[0].file, copies))
        if len(kept) > len(first):
            self.findings.append(say.same_instance(self._id, entries[0].file, len(kept) - len(first)))
        return kept

    def _pictures(self, entries: Sequence[Entry]) -> None:
        """Each projection picture is a stack of its own, named by its view or its number if there are several."""
        entries = sorted(entries, key=lambda e: (float(e.header.frames[0].marks.get("number", 0)), str(e.file)))
        width = len(str(len(entries)))
        names = [""] if len(entries) == 1 else [f"image={n:0{width}d}" for n in range(1, len(entries) + 1)]
        for name, entry in zip(names, entries, strict=True):
            frame = entry.header.frames[0]
            rows, columns = frame.spacing or (1.0, 1.0)
            matrix = np.diag([rows, columns, 1.0, 1.0])
            shape = (entry.header.rows, entry.header.columns)
            self.stacks.append(_stack([_Slice(entry, 0, frame)], matrix, shape, name))
        if len(entries) > 1:
            self.findings.append(say.several(self._id, entries[0].file, names, "image"))

    def _volumes(self, slices: Sequence[_Slice]) -> None:
        placed = [s for s in slices if s.frame.position and s.frame.orientation and s.frame.spacing]
        if len(placed) < len(slices):
            lost = next(s for s in slices if s not in placed) if len(slices) < 100 else slices[0]
            self.findings.append(say.no_position(self._id, lost.entry.file, len(slices) - len(placed), len(slices)))
            if placed:
                return  # A volume of which some slices have no place is not whole.
        groups = self._groups(placed)
        labels = _labels(groups)
        if len(groups) > 1:
            self.findings.append(say.mixed(self._id, placed[0].entry.file, labels))
        labelled = zip(labels, groups, strict=True)
        parts = [(label, group, part) for label, group in labelled for part in self._told(group)]
        names = _unique([",".join(word for word in (label, part.name) if word) for label, _, part in parts])
        most = max((len(part.members) for _, _, part in parts), default=0)
        for name, (_, group, part) in zip(names, parts, strict=True):
            chosen = [group.slices[member.index] for member in part.members]
            self._volume(group, chosen, name, most if len(groups) == 1 else 0)

    def _groups(self, slices: Sequence[_Slice]) -> list["_Group"]:
        """Slices of one size, pixel size and orientation."""
        groups: list[_Group] = []
        bad = 0
        for one in slices:
            for group in groups:
                if group.takes(one):
                    group.slices.append(one)
                    break
            else:
                directions = geometry.axes(one.frame.orientation or ())
                if directions is None:
                    bad += 1
                elif len(groups) < limits.SLICES:
                    groups.append(_Group(directions, [one]))
        if bad:
            self.findings.append(say.bad_orientation(self._id, slices[0].entry.file, bad))
            return []  # A volume without some of its slices is not whole.
        return groups

    def _told(self, group: "_Group") -> list[volumes.Part]:
        positions = group.positions()
        along = positions @ group.directions[2]
        members = [
            volumes.Member(index, place, one.frame.marks)
            for index, (place, one) in enumerate(zip(geometry.places(along.tolist()), group.slices, strict=True))
        ]

        def even(chosen: Sequence[volumes.Member]) -> bool:
            order = sorted(chosen, key=lambda m: m.place)
            return len(order) < 2 or _fits(geometry.spacing(positions[[m.index for m in order]], group.directions))

        parts, mark = volumes.tell_apart(members, even)
        if len(parts) > 1:
            names = [part.name for part in parts]
            self.findings.append(say.several(self._id, group.slices[0].entry.file, names, mark))
        return parts

    def _volume(self, group: "_Group", slices: Sequence[_Slice], name: str, most: int) -> None:
        """One stack, unless its slices do not lie as those of a volume."""
        along = [float(np.dot(s.frame.position or (), group.directions[2])) for s in slices]
        order = np.argsort(along, kind="stable")
        slices = [slices[i] for i in order]
        first = slices[0]
        case, file = local_id(first.entry.header.series, name), first.entry.file
        numbers = geometry.places(along)
        if len(set(numbers)) < len(numbers):
            self.findings.append(say.doubled(case, file, len(numbers) - len(set(numbers)), len(numbers)))
            return
        step = first.frame.gap or first.frame.thickness
        if len(slices) > 1:
            spaced = geometry.spacing(np.array([s.frame.position for s in slices]), group.directions)
            if wrong := _wrong(case, file, spaced, min(first.frame.spacing or (1.0,))):
                self.findings.append(wrong)
                return
            self.findings += _odd(case, file, spaced, first.frame, len(slices), most)
            step = spaced.step
        elif step is None:
            self.findings.append(say.no_thickness(case, file))
            step = 1.0
        low, high = limits.SPACING
        header = first.entry.header
        if not low <= step <= high or len(slices) * header.rows * header.columns > limits.VOXELS:
            self.findings.append(say.absurd(case, file, step, len(slices)))
            return
        directions = geometry.axes(first.frame.orientation or ())
        own = group.directions if directions is None else directions
        matrix = geometry.affine(first.frame.position or (), own, first.frame.spacing or (), step)
        shape = (header.columns, header.rows, len(slices))
        self.stacks.append(_stack(slices, matrix, shape, name))


@dataclass
class _Group:
    directions: geometry.Floats
    slices: list[_Slice]

    def takes(self, other: _Slice) -> bool:
        own = self.slices[0]
        a, b = own.entry.header, other.entry.header
        if (a.rows, a.columns) != (b.rows, b.columns):
            return False
        turn = np.subtract(own.frame.orientation or (), other.frame.orientation or ())
        size = np.subtract(own.frame.spacing or (), other.frame.spacing or ())
        return float(np.abs(turn).max()) <= geometry.SAME_DIRECTION and float(np.abs(size).max()) <= 1e-3 * min(
            own.frame.spacing or (1.0,)
        )

    def positions(self) -> geometry.Floats:
        return np.array([one.frame.position for one in self.slices], dtype=np.float64)


def _fits(spaced: geometry.Spacing) -> bool:
    return spaced.off <= geometry.EVEN


def _wrong(case: str, file: Path, spaced: geometry.Spacing, pixel: float) -> Finding | None:
    """What keeps these slices from being a volume."""
    if max(spaced.scatter, spaced.drift) > geometry.SHIFT * pixel:
        if spaced.scatter > geometry.SHIFT * pixel:
            return say.scattered(case, file, spaced.scatter)
        return say.tilted(case, file, spaced.drift)
    if spaced.missing:
        return say.missing(case, file, spaced.missing, spaced.step)
    if spaced.off > geometry.UNEVEN:
        return say.uneven(case, file, spaced.off, "error")
    return None


def _odd(case: str, file: Path, spaced: geometry.Spacing, frame: Frame, count: int, most: int) -> list[Finding]:
    """What is odd about a volume that can be used."""
    found = []
    if spaced.off > geometry.EVEN:
        found.append(say.uneven(case, file, spaced.off, "warning"))
    if count < most:
        found.append(say.shorter(case, file, count, most))
    if frame.gap and abs(frame.gap - spaced.step) > 0.05 * spaced.step and frame.thickness != frame.gap:
        found.append(say.other_gap(case, file, frame.gap, spaced.step))
    return found


def _labels(groups: Sequence[_Group]) -> list[str]:
    """What tells groups of several orientations or sizes apart; empty for the only one."""
    if len(groups) < 2:
        return [""] * len(groups)
    planes = [geometry.plane(group.directions) for group in groups]
    if len(set(planes)) == len(planes):
        return [f"plane={plane}" for plane in planes]
    sizes = [f"{g.slices[0].entry.header.columns}x{g.slices[0].entry.header.rows}" for g in groups]
    if len(set(sizes)) == len(sizes):
        return [f"size={size}" for size in sizes]
    return [f"part={number:0{len(str(len(groups)))}d}" for number in range(1, len(groups) + 1)]


def _unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name};{seen[name]}")
    return out


def _stack(slices: Sequence[_Slice], matrix: geometry.Floats, shape: tuple[int, ...], name: str) -> Stack:
    header = slices[0].entry.header
    frames = dict.fromkeys(s.entry.header.frame_of_reference for s in slices)
    frames.pop("", None)
    facts = dict(header.facts)
    facts["transfer_syntax"] = header.syntax
    if any(s.entry.header.facts.get("burned_in") == "YES" for s in slices):
        facts["burned_in"] = "YES"
    return Stack(
        files=tuple(s.entry.file for s in slices),
        frames=tuple(s.number for s in slices),
        instances=tuple(s.entry.header.instance for s in slices),
        series=header.series,
        study=header.study,
        frame_of_reference=tuple(frames),
        matrix=tuple(tuple(float(v) for v in row) for row in matrix),
        shape=shape,
        modality=header.modality,
        description=header.description,
        patient=header.whose,
        name=name,
        facts=facts,
        sizes=tuple((s.entry.size, s.entry.changed) for s in slices),
        dtype=dtype_of([(s.entry.header, s.frame) for s in slices]),
    )
