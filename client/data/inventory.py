"""What lies in a folder, counted. Of DICOM images only headers are read, other files whole; nothing is written."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from client.data.catalogue import look
from client.data.dicom.scan import Progress
from client.data.readers import read, suffix
from client.data.structures import has_names, names_in
from client.data.volume import Case, Finding, Stack
from client.site import SiteConfig
from common.errors import DataError

# Distinct values of a label file that are named; a grey mask has up to 256.
_VALUES = 20
T = TypeVar("T", int, float)
# Names that tell the volumes of a series apart, per group.
_NAMES = 12


@dataclass(frozen=True)
class Group:
    """Volumes that are alike.

    Attributes:
        kind: Modality and series description, or the file format.
        volumes: How many.
        shapes: Smallest and largest size in voxels (pixels).
        spacings: Smallest and largest voxel size in mm; empty for pictures.
        labelled: How many of them have an annotation.
        names: What tells the volumes of one series apart ("b=50") -> how often.
    """

    kind: str
    volumes: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    spacings: tuple[tuple[float, ...], tuple[float, ...]]
    labelled: int
    names: dict[str, int]


@dataclass(frozen=True)
class Inventory:
    """What a folder holds.

    Attributes:
        layout: As `catalogue.look` calls it.
        patients: Number of patients.
        examinations: DICOM studies; 0 for other formats.
        series: DICOM series; 0 for other formats.
        cases: What would be cases of a study with one image channel.
        labelled: How many of them have an annotation.
        unreadable: Why cases cannot be read, naming the file; one text per case.
        groups: Volumes by kind, most frequent first.
        values: Label value or structure name -> in how many label files.
        findings: What was left out or is odd.
    """

    layout: str
    patients: int
    examinations: int
    series: int
    cases: int
    labelled: int
    unreadable: tuple[str, ...]
    groups: tuple[Group, ...]
    values: dict[str, int]
    findings: tuple[Finding, ...]


def inventory(folder: Path, progress: Progress | None = None, listing: Progress | None = None) -> Inventory:
    """Look through `folder`.

    Args:
        folder: Or a table of cases.
        progress: Called with (cases done, cases in all) while sizes and labels are read.
        listing: Called with (files done, files in all) before that, while DICOM headers are read.

    Raises:
        DataError: Nothing that fedscan knows is there.
    """
    found = look(SiteConfig(name="here", data=folder), 1, progress=listing)
    values: Counter[str] = Counter()
    seen: dict[tuple[str, ...], list[_Seen]] = defaultdict(list)
    broken: list[str] = []
    for number, case in enumerate(found.cases, start=1):
        try:
            if case.label is not None:
                values.update(_label_names(case.label))
            if not found.stacks:
                one = _seen(case)
                seen[(suffix(file_of(case)) or "",)].append(one)
        except DataError as error:
            broken.append(str(error))
        if progress:
            progress(number, len(found.cases))
    labels = Counter({image.id: 1 for case in found.cases if case.label for image in case.images
                      if isinstance(image, Stack)})  # fmt: skip
    for stack in found.stacks:
        seen[stack.modality, stack.description].append(
            _Seen(stack.shape, _spacing(stack), stack.name, bool(labels[stack.id]))
        )
    groups = (_group(" ".join(filter(None, kind)), volumes) for kind, volumes in seen.items())
    return Inventory(
        layout=found.layout,
        patients=len({s.patient for s in found.stacks} or {case.patient for case in found.cases}),
        examinations=len({stack.study for stack in found.stacks}),
        series=len({stack.series for stack in found.stacks}),
        cases=len(found.cases),
        labelled=sum(case.label is not None for case in found.cases),
        unreadable=tuple(broken),
        groups=tuple(sorted(groups, key=lambda group: (-group.volumes, group.kind))),
        values=dict(values.most_common()),
        findings=found.findings,
    )


@dataclass(frozen=True)
class _Seen:
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    name: str = ""
    labelled: bool = False


def file_of(case: Case) -> Path:
    """The first file of a case."""
    image = case.images[0]
    return image if isinstance(image, Path) else image.files[0]


def _seen(case: Case) -> _Seen:
    volume = read(file_of(case))
    spacing = volume.spacing if volume.array.ndim == 4 else ()
    return _Seen(volume.array.shape[1:], spacing, labelled=case.label is not None)


def _spacing(stack: Stack) -> tuple[float, ...]:
    spacing = np.linalg.norm(stack.affine[:3, :3], axis=0)[: len(stack.shape)]
    return tuple(float(s) for s in spacing)


def _group(kind: str, volumes: Sequence[_Seen]) -> Group:
    names = Counter(v.name for v in volumes if v.name)
    return Group(
        kind,
        len(volumes),
        _ends([v.shape for v in volumes]),
        _ends([tuple(round(s, 3) for s in v.spacing) for v in volumes]),
        sum(v.labelled for v in volumes),
        dict(names.most_common(_NAMES)),
    )


def _ends(rows: Sequence[tuple[T, ...]]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Smallest and largest along each axis; of rows of unequal length, those of the most frequent one."""
    length = Counter(map(len, rows)).most_common(1)[0][0]
    columns = list(zip(*(row for row in rows if len(row) == length), strict=True))
    return tuple(min(c) for c in columns), tuple(max(c) for c in columns)


def _label_names(path: Path) -> Iterator[str]:
    """Names of structures, or the values of a label map; of a grey mask its range."""
    if has_names(path):
        yield from dict.fromkeys(names_in(path))
        return
    values = [float(v) for v in np.unique(read(path, label=True).array) if v != 0]
    if len(values) > _VALUES:
        yield f"{values[0]:g} … {values[-1]:g} (grey)"
    else:
        yield from (f"{value:g}" for value in values)
