"""What `fedscan predict` is given: files, folders of files, folders of DICOM, as one subject after the other."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.data.dicom.objects import Scan
from client.data.dicom.reading import is_dicom
from client.data.dicom.scan import scan
from client.data.dicom_layout import dicom_cases
from client.data.readers import stem, suffix
from client.data.volume import Source
from client.site import SeriesRule
from common.errors import DataError
from common.study import Study

# nnU-Net's way to say which channel a file is.
_CHANNEL = re.compile(r"^(?P<name>.+)_(?P<number>\d{4})$")


@dataclass(frozen=True)
class Subject:
    """One image, or the channels of one.

    Attributes:
        name: Of its output files.
        images: One source per channel, or one with all channels.
        where: For people: the file or folder.
    """

    name: str
    images: tuple[Source, ...]
    where: str


@dataclass(frozen=True)
class Inputs:
    """What there is to do.

    Attributes:
        subjects: With distinct names.
        left_out: What was found and is not among them, and why.
    """

    subjects: tuple[Subject, ...]
    left_out: tuple[str, ...]


def inputs_of(paths: Sequence[Path], study: Study, rules: Mapping[str, SeriesRule]) -> Inputs:
    """The subjects in `paths`.

    Args:
        paths: Image files, folders with image files, or folders with DICOM (at any depth).
        study: Its channels.
        rules: Which DICOM series is which channel, as in `site.yaml`.

    Raises:
        DataError: There is nothing at a path, or nothing that can be looked at.
    """
    subjects: list[Subject] = []
    left_out: list[str] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _visible(p, path))
        pictures = [f for f in files if suffix(f)]
        if pictures:
            subjects += _of_files(pictures, study, left_out)
            if beside := sum(is_dicom(f) for f in files if not suffix(f)):
                left_out.append(f"{path}: {beside} DICOM files lie among other images and were not looked at. "
                                "Give the folders that hold DICOM alone")  # fmt: skip
        elif files:
            subjects += _of_dicom(path, study, rules, left_out)
    if not subjects:
        said = "\n".join(left_out[:10])
        raise DataError(f"no image found in {', '.join(map(str, paths))}. {said}".strip())
    return Inputs(tuple(_distinct(subjects)), tuple(left_out))


def _visible(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _of_files(files: Iterable[Path], study: Study, left_out: list[str]) -> list[Subject]:
    """A file with all channels is a subject; files NAME_0000, NAME_0001 … are the channels of one."""
    wanted = len(study.data.channels)
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file in files:
        numbered = _CHANNEL.match(stem(file))
        name = numbered["name"] if numbered and (wanted > 1 or numbered["number"] == "0000") else stem(file)
        groups[file.parent, name].append(file)
    subjects = []
    for (folder, name), group in groups.items():
        if len(group) in (1, wanted):
            subjects.append(Subject(name, tuple(group), str(group[0] if len(group) == 1 else folder / name)))
        else:
            left_out.append(f"{folder / name}: {len(group)} files for the {wanted} channel(s) of the study")
    return subjects


def _of_dicom(path: Path, study: Study, rules: Mapping[str, SeriesRule], left_out: list[str]) -> list[Subject]:
    found = scan(path)
    cases, findings = dicom_cases(Scan(found.stacks, (), ()), rules, study.data.channels)
    left_out += [f"{f.what}. {f.remedy}" for f in (*found.findings, *findings)]
    return [Subject(case.id, case.images, str(case.images[0])) for case in cases]


def _distinct(subjects: Sequence[Subject]) -> list[Subject]:
    """The subjects under names that tell them apart; equal ones are numbered."""
    times = Counter(s.name for s in subjects)
    taken: Counter[str] = Counter()
    result = []
    for subject in subjects:
        if times[subject.name] > 1:
            taken[subject.name] += 1
            subject = replace(subject, name=f"{subject.name}-{taken[subject.name]}")
        result.append(subject)
    return result
