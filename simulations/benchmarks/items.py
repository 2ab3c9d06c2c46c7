"""Every DICOM object of the development data, read by us and by others: `python -m simulations.benchmarks.items`.

Judges (`simulations.dicom_judges`): SimpleITK for series of single frames, highdicom for multi-frame files and
segmentations, Matplotlib's polygons for contours, dcm2niix for how many volumes a series holds. Beside them stands
what rt-utils makes of contours; it moves their points to whole pixels, so it is no judge. FEDSCAN_DATA names the data.
Prints the table of docs/dicom-measured.md.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data.dicom.codecs import SYNTAXES
from client.data.dicom.objects import Item
from client.data.dicom.scan import scan
from client.data.readers import read
from client.data.structures import Structures, open_structures
from client.data.volume import Stack, Volume
from common.errors import DataError
from simulations import dicom_judges
from simulations.dicom_judges import Judged, canonical

FOLDERS = ("cardiac-mr-dicom", "dicom-seg-rtstruct-small", "prostate-mr-study-dicom")
AFFINE = 1e-4  # mm
_Numbered = tuple[int, NDArray[np.bool_]]
DICE = 0.99


@dataclass(frozen=True)
class Row:
    """One object, or one series.

    Attributes:
        item: Where it lies.
        kind: Modality, or what a label is.
        syntax: Transfer syntax.
        result: What we made of it.
        judge: Who was asked.
        agreement: In words.
        agrees: None where there is nothing to compare.
    """

    item: str
    kind: str
    syntax: str
    result: str
    judge: str
    agreement: str
    agrees: bool | None


def measure(data: Path) -> Iterator[Row]:
    """A row for each series and each label in the folders of `data`."""
    for name in FOLDERS:
        stacks, items, _ = scan(data / name)
        for _, group in groupby(stacks, key=lambda s: (s.study, s.series)):
            yield _series(data, list(group))
        for item in items:
            yield _label(data, item, [s for s in stacks if s.study == item.study or _near(s, item)])


def _near(stack: Stack, item: Item) -> bool:
    """A label whose references lead nowhere may still lie beside its series."""
    return stack.files[0].parent == item.file.parent


def _series(data: Path, stacks: Sequence[Stack]) -> Row:
    first = stacks[0]
    single = all(len(s.paths) == len(s.files) for s in stacks)
    off, differing, padded, total = 0.0, 0, 0, 0
    for stack in stacks:
        volume = read(stack)
        judged = dicom_judges.by_simpleitk(stack.paths) if single else dicom_judges.by_highdicom_image(stack.paths[0])
        away, wrong, filled = _against(volume, judged, stack)
        off, differing, padded = max(off, away), differing + wrong, padded + filled
        total += volume.array.size
    found = len(dicom_judges.by_dcm2niix([f for s in stacks for f in s.paths]))
    judge = f"{'SimpleITK' if single else 'highdicom'}; dcm2niix: {found} volume{'s' * (found > 1)}"
    shapes = sorted({"×".join(str(n) for n in s.shape) for s in stacks})
    result = f"{len(stacks)} volume{'s' * (len(stacks) > 1)}, {', '.join(shapes)}"
    # Not the exact figure, which depends on how libraries round.
    words = f"affine within {max(AFFINE, off):.4g} mm, {differing} of {total} voxels differ"
    if padded:
        words += f" (beside {padded} of padding, which take the smallest value)"
    agrees = off <= AFFINE and not differing and found == len(stacks)
    syntax = SYNTAXES[str(first.facts["transfer_syntax"])].name
    return Row(_where(data, first.files[0].parent), first.modality, syntax, result, judge, words, agrees)


def _against(volume: Volume, judged: Judged, stack: Stack) -> tuple[float, int, int]:
    """Largest difference of the affines in mm, how many voxels differ to float32, and how many are padding."""
    mine = canonical(volume.array[0], volume.affine)
    if mine.array.shape != judged.array.shape:
        return float("inf"), mine.array.size, 0
    # One slice has no distance to the next.
    columns = [0, 1, 3] if len(stack.files) == 1 else [0, 1, 2, 3]
    away = float(np.abs(mine.affine - judged.affine)[:, columns].max())
    padding = dicom_judges.padding_of(stack.files[0]) if stack.modality == "CT" else None
    padded = judged.array == padding if padding is not None else np.zeros(judged.array.shape, bool)
    filled = bool((mine.array[padded] == mine.array.min()).all())
    differ = (mine.array.astype(np.float32) != judged.array.astype(np.float32)) & (~padded | (not filled))
    return away, int(differ.sum()), int(padded.sum())


def _label(data: Path, item: Item, stacks: Sequence[Stack]) -> Row:
    where, kind = _where(data, item.file), {"seg": "SEG", "rtstruct": "RTSTRUCT"}.get(item.kind, item.modality)
    why: dict[str, None] = {}
    for stack in stacks:
        volume = read(stack)
        try:
            structures = open_structures(item.file, stack, volume)
            masks = {s.name: (s.number, structures.mask(s.number)) for s in structures.segments}
        except DataError as error:
            note = getattr(error, "note", None)
            why[note.code if note else str(getattr(error, "reason", "unreadable"))] = None
            continue
        judge, words, agrees = _judged(item, stack, volume, masks)
        result = f"{len(masks)} structures on {'×'.join(str(n) for n in volume.array.shape[1:])}{_notes(structures)}"
        return Row(where, kind, "", result, judge, words, agrees)
    reason = ", ".join(why) or "no series that it refers to"
    return Row(where, kind, "", f"refused: {reason}", "", "", None)


def _judged(item: Item, stack: Stack, volume: Volume, masks: Mapping[str, _Numbered]) -> tuple[str, str, bool | None]:
    if item.kind == "seg":
        numbered = dicom_judges.by_highdicom(item.file)
        others = {name: numbered[number] for name, (number, _) in masks.items()}
        scores = _scores(volume, masks, others)
        return "highdicom", _in_words(scores), min(scores) >= DICE
    polygons = dicom_judges.by_polygons(stack.paths, item.file)
    scores = [dicom_judges.dice(mask, volume.affine, *polygons[name]) for name, (_, mask) in masks.items()]
    try:
        beside = _in_words(_scores(volume, masks, dicom_judges.by_rt_utils(stack.paths, item.file)))
    except Exception as error:  # noqa: BLE001 - whatever the other reader raises is its answer
        beside = f"fails with {type(error).__name__}"
    return "Matplotlib; rt-utils", f"{_in_words(scores)}; rt-utils {beside}", min(scores) >= DICE


def _scores(volume: Volume, masks: Mapping[str, _Numbered], others: Mapping[str, Judged]) -> list[float]:
    return [dicom_judges.dice(mask, volume.affine, others[name]) for name, (_, mask) in masks.items() if name in others]


def _in_words(scores: Sequence[float]) -> str:
    return f"Dice {min(scores):.4f}" + (f" or more ({len(scores)} structures)" if len(scores) > 1 else "")


def _notes(structures: Structures) -> str:
    codes = sorted({note.code for note in structures.notes})
    return f"; told: {', '.join(codes)}" if codes else ""


def _where(data: Path, path: Path) -> str:
    return str(path.relative_to(data))


def table(rows: Sequence[Row]) -> str:
    """The page, as Markdown."""
    lines = [
        "# DICOM, measured",
        "",
        "Made by `python -m simulations.benchmarks.items > docs/dicom-measured.md` from the development data",
        "(public sets). Each series is read by fedscan and by a reader of other people; voxels must be identical, the",
        f"affine within {AFFINE:g} mm, masks with a Dice of at least {DICE:g} (of contours without the voxels whose",
        "centre lies on an edge: no rule says on which side they are).",
        "",
        "| item | kind | transfer syntax | result | judge | agreement |",
        "|---|---|---|---|---|---|",
        *(f"| {r.item} | {r.kind} | {r.syntax} | {r.result} | {r.judge} | {_mark(r)}{r.agreement} |" for r in rows),
    ]
    return "\n".join(lines) + "\n"


def _mark(row: Row) -> str:
    return {True: "", False: "**differs:** ", None: ""}[row.agrees]


def main() -> int:
    """Print the table; 0 if everything that could be compared agrees."""
    data = os.environ.get("FEDSCAN_DATA")
    if not data:
        print(json.dumps({"error": "FEDSCAN_DATA must name the folder of the development data"}), file=sys.stderr)
        return 2
    rows = list(measure(Path(data).resolve()))
    print(table(rows), end="")
    return 1 if any(row.agrees is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
