"""How the named structures of a site's files become the study's labels."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.data.dicom.workers import Unreadable, Workers
from client.data.gate.codes_dicom import STRUCTURES
from client.data.labels import check_rules, unlabelled
from client.data.structures import Code, Misfit, Note, Segment, Structures, open_structures
from client.data.structures.model import Mask
from client.data.structures.snomed import CURRENT as SCT
from client.data.structures.snomed import OLD, current
from client.data.volume import Finding, Source, Volume
from client.label_rules import LabelCode, LabelEntry, LabelRange, LabelRule, entries
from client.site import SiteConfig
from common.codes import checks, value_of
from common.errors import DataError
from common.study_plan import Data

# Of codes whose scheme nothing tells: how SNOMED CT's look, besides their check digit.
_SNOMED = re.compile(r"[1-9]\d{5,17}")


@dataclass(frozen=True)
class NamedLabels:
    """A study's labels and a site's rules for them, for files with names.

    Attributes:
        labels: The study's, in its order.
        rules: Label -> the site's rule. A label without one is found by the study's code, or by its own name.
        codes: Label -> SNOMED CT code without its meaning, from the study.
        ignored: What belongs to no label.
        priority: Labels, the first of which takes voxels that several claim.
    """

    labels: tuple[str, ...]
    rules: Mapping[str, LabelRule]
    codes: Mapping[str, str]
    ignored: tuple[LabelEntry, ...] = ()
    priority: tuple[str, ...] = ()

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """The labels that the site does not annotate."""
        return unlabelled(self.labels, self.rules)

    def key(self) -> list[Any]:
        """Everything that decides how a file is mapped, as JSON values: part of a prepared case's key."""
        plain = [[name, [_plain(e) for e in entries(rule)]] for name, rule in sorted(self.rules.items())]
        return [self.labels, plain, sorted(self.codes.items()), [_plain(e) for e in self.ignored], self.priority]

    def assign(self, segments: Sequence[Segment]) -> dict[int, str | None]:
        """Segment number -> label, or None for what is ignored.

        An exact name or a number goes before patterns and codes, and labels before what is ignored. Names that the
        file lists but does not draw may be unknown.

        Raises:
            Misfit: A segment that nothing says anything of, or that two labels claim.
        """
        found: dict[int, str | None] = {}
        for segment in segments:
            fitting = self._strongest(segment)
            if fitting is None and not segment.drawn:
                fitting = [None]
            if fitting is None:
                raise self._unknown(segment, segments)
            if len(fitting) > 1:
                what = f"{_called(segment)} belongs to {' and to '.join(map(str, fitting))}"
                raise Misfit("label-name", what, "Correct `labels` in the site's file: one rule may claim it.")
            found[segment.number] = fitting[0]
        return found

    def label_of(self, segment: Segment) -> str | None:
        """The one label to which `segment` belongs; None where there is none, or several claim it."""
        fitting = self._strongest(segment) or []
        return fitting[0] if len(fitting) == 1 else None

    def contradicted(self, segment: Segment, label: str) -> str | None:
        """The label whose code `segment` has although it counts as `label`; None where nothing is contradicted."""
        if self._code_says(label, segment):
            return None
        return next((other for other in self.labels if self._code_says(other, segment)), None)

    def _code_says(self, label: str, segment: Segment) -> bool:
        own = LabelCode(code=self.codes[label]) if label in self.codes else None
        coded = [entry for entry in (*self._entries(label), own) if isinstance(entry, LabelCode)]
        return any(entry.code is not None and _fits(entry, segment, exact=False) for entry in coded)

    def _strongest(self, segment: Segment) -> list[str | None] | None:
        return next(filter(None, self._fitting(segment)), None)

    def _fitting(self, segment: Segment) -> Iterator[list[str | None]]:
        """Labels that claim `segment`, those of the strongest claim first; None for what is ignored."""
        for exact in (True, False):
            yield [n for n in self.labels if any(_fits(entry, segment, exact) for entry in self._entries(n))]
            yield [None] if any(_fits(entry, segment, exact) for entry in self.ignored) else []

    def _entries(self, name: str) -> Sequence[LabelEntry | LabelRange]:
        if name in self.rules:
            return entries(self.rules[name])
        own = [name, name.replace("_", " "), name.replace("-", " ")]
        return [*own, LabelCode(code=self.codes[name])] if name in self.codes else own

    def _unknown(self, segment: Segment, segments: Sequence[Segment]) -> Misfit:
        names = {e.lower(): e for name in self.labels for e in (name, *self._entries(name)) if isinstance(e, str)}
        near = difflib.get_close_matches(segment.name.lower(), names, n=1, cutoff=0.6)
        hint = f" (near: {names[near[0]]})" if near else ""
        code = f", coded {segment.code.value} {segment.code.meaning}" if segment.code else ""
        others = ", ".join(repr(s.name) for s in segments[:20])
        return Misfit(
            "label-name",
            f"{_called(segment)}{code} belongs to no label{hint}; the file has {others}",
            "Say in the site's file to which of `labels` it belongs, or list it under `ignored`.",
        )


class Labelled(NamedTuple):
    """A label file on its image's grid.

    Attributes:
        array: `(X, Y, Z)` uint8: 0, or the number of the study's label from 1. All 0 if a finding is an error.
        unlabelled: The labels that the site does not annotate: where they are is not known.
        findings: What is wrong or odd.
    """

    array: NDArray[np.uint8]
    unlabelled: tuple[str, ...]
    findings: tuple[Finding, ...]


def named_labels(data: Data, site: SiteConfig) -> NamedLabels:
    """The rules by which `site` maps its names to the labels of a study's `data`.

    Raises:
        StudyError: A rule or priority for a label that the study does not have, or nothing is annotated.
    """
    check_rules(data.labels, site.labels, site.priority)
    codes = {name: value_of(code) for name, code in data.codes.items()}
    return NamedLabels(data.labels, site.labels, codes, site.ignored, site.priority)


def label_volume(path: Path, image: Source, volume: Volume, rules: NamedLabels, *, case: str = "",
                 workers: Workers | None = None) -> Labelled:  # fmt: skip
    """The label file `path`, whose structures have names, as a label map on the grid of an image.

    Args:
        path: A DICOM segmentation or structure set, or an NRRD file that describes its segments
            (`structures.has_names`).
        image: Where the image comes from.
        volume: The image as it was read.
        rules: From names to labels.
        case: The case's id, for findings.
        workers: Processes that parse DICOM; those of this process by default.
    """
    notes: dict[Note, None] = {}
    array = np.zeros(volume.array.shape[1:], dtype=np.uint8)
    try:
        structures = open_structures(path, image, volume, workers)
        notes = structures.notes
        array = _label_map(structures, rules)
    except Misfit as misfit:
        notes[misfit.note] = None
    except Unreadable as error:
        notes[Note("unreadable", "error", str(error), "Export the label again, or leave the case out.")] = None
    except DataError as error:
        what, _, remedy = str(error).removeprefix(f"{path}: ").partition(". ")
        notes[Note("unreadable", "error", what, remedy or "Copy or export the file again.")] = None
    findings = tuple(Finding(n.code, n.severity, case, f"{path}: {n.what}", n.remedy) for n in notes)
    return Labelled(array, rules.unlabelled, findings)


def _label_map(structures: Structures, rules: NamedLabels) -> NDArray[np.uint8]:
    assigned = rules.assign(structures.segments)
    for segment in structures.segments:
        label = assigned[segment.number]
        other = rules.contradicted(segment, label) if label else None
        if other:
            what = f"{_called(segment)} counts as {label}, and its code is that of {other}"
            structures.warn("label-code", what, STRUCTURES["label-code"].remedy)
    ranked = [*dict.fromkeys(rules.priority), *(n for n in rules.labels if n not in rules.priority)]
    out: NDArray[np.uint8] | None = None
    for name in ranked:
        if name in rules.unlabelled:
            continue
        numbers = [number for number, label in assigned.items() if label == name]
        if not numbers:
            what = f"holds no structure for {name}, which counts as absent"
            remedy = "Right if it is truly absent; if nobody annotated it here, say `unlabelled` in the site's file."
            structures.warn("label-absent", what, remedy)
        for number in numbers:
            mask = structures.mask(number)
            out = np.zeros_like(mask, dtype=np.uint8) if out is None else out
            _put(structures, mask, name, out, rules)
    return np.ascontiguousarray(out) if out is not None else np.zeros(structures.shape, dtype=np.uint8)


def _put(structures: Structures, mask: Mask, name: str, out: NDArray[np.uint8], rules: NamedLabels) -> None:
    """Give `name` the voxels of `mask`, except those that a label of higher priority has."""
    own = rules.labels.index(name) + 1
    taken = mask & (out != 0) & (out != own)
    for other in np.unique(out[taken]):
        first = rules.labels[other - 1]
        if first not in rules.priority:
            voxels = int((out[taken] == other).sum())
            remedy = f"Say in the site's file which goes first: `priority: [{name}, {first}]` or the reverse."
            raise Misfit("label-overlap", f"{first} and {name} overlap in {voxels} voxels", remedy)
    if mask.any() and bool(taken[mask].all()):
        structures.warn("label-hidden", f"all voxels of a structure of {name} belong to labels of higher priority",
                        "Check the order of `priority` in the site's file.")  # fmt: skip
    out[mask & ~taken] = own


def _fits(entry: LabelEntry | LabelRange, segment: Segment, exact: bool) -> bool:
    if isinstance(entry, int):
        return exact and entry == segment.number
    if isinstance(entry, LabelRange):
        return exact and entry.low <= segment.number <= entry.high
    if isinstance(entry, str):
        name, pattern = segment.name.lower(), entry.strip().lower()
        return name == pattern if exact else fnmatchcase(name, pattern)
    return not exact and _same(entry.code, segment.code) and _same(entry.category, segment.category)


def _same(wanted: str | None, code: Code | None) -> bool:
    """Whether a rule's code is that of a structure; a SNOMED code is not any scheme's number that looks like it."""
    if wanted is None or code is None:
        return wanted is None
    value, scheme = current(wanted, SCT if _SNOMED.fullmatch(wanted) and checks(wanted) else OLD[0])
    return value == code.value and (code.scheme in (SCT, *OLD) or scheme != SCT)


def _called(segment: Segment) -> str:
    return f"'{segment.name}' (number {segment.number})" if segment.name else f"the nameless number {segment.number}"


def _plain(entry: LabelEntry | LabelRange) -> Any:
    return entry if isinstance(entry, int | str) else entry.model_dump(mode="json")
