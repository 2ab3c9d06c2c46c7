"""Folder layouts in which sites keep their cases. Each function returns None where its layout is not there."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from client.data.readers import stem, suffix
from client.data.tables import image_files, patient_of, read_rows
from client.data.volume import Case
from common.errors import DataError

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_LABEL_ENDINGS = ("", "_mask", "_label", "_labels", "_seg", "_segmentation")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations")


def nnunet(data: Path, channels: int, names: Sequence[str] = ()) -> list[Case] | None:
    """nnU-Net: `imagesTr/NAME_0000.nii.gz`, `NAME_0001…` per channel, `labelsTr/NAME.nii.gz`."""
    files = scans(data / "imagesTr")
    if not files or not all(_CHANNEL.fullmatch(stem(f)) for f in files):
        return None
    labels = {stem(f): f for f in scans(data / "labelsTr")}
    return [Case(name, name, images, labels.get(name)) for name, images in _by_channel(files).items()]


def msd(data: Path, channels: int, names: Sequence[str] = ()) -> list[Case] | None:
    """Medical Segmentation Decathlon: `dataset.json` lists image and label of each training case."""
    description = data / "dataset.json"
    if not description.is_file():
        return None
    try:
        entries = json.loads(description.read_text(encoding="utf-8-sig")).get("training")
        pairs = [(data / e["image"], data / e["label"] if e.get("label") else None) for e in entries or []]
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{description}: cannot be read as a data set's description ({type(error).__name__}). It must be JSON with "
            'a list "training" of {"image": ..., "label": ...}.'
        ) from None
    return [Case(stem(image), stem(image), (image,), label) for image, label in pairs] or None


def folders(data: Path, channels: int, names: Sequence[str] = ()) -> list[Case] | None:
    """`images/` and `labels/` (or `masks/`) with equal file names; a label may end in `_mask`, `_label` or `_seg`.

    With several channels, images are `NAME_0000`, `NAME_0001`, … as in nnU-Net, or one file with all channels.
    Patients come from a `cases.csv` in the folder above, if it lists these files.
    """
    files = scans(data / "images")
    if not files:
        return None
    place = next((data / name for name in _LABEL_FOLDERS if (data / name).is_dir()), data / "labels")
    labels = {stem(f): f for f in scans(place)}
    numbered = channels > 1 and all(_CHANNEL.fullmatch(stem(f)) for f in files)
    groups = _by_channel(files) if numbered else {stem(f): (f,) for f in files}
    if not numbered and len(groups) < len(files):
        raise DataError(f"{data / 'images'}: two files have the same name up to the ending. Rename one.")
    patients = _patients_beside(data)
    return [
        Case(name, patients.get(images[0].resolve(), name), images,
             next((labels[name + end] for end in _LABEL_ENDINGS if name + end in labels), None))
        for name, images in groups.items()
    ]  # fmt: skip


def scans(folder: Path) -> list[Path]:
    """The files in `folder` that some reader knows, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if suffix(f) and not f.name.startswith("."))


def _by_channel(files: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """`NAME_dddd` files by NAME, in the order of their numbers."""
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for file in files:
        match = _CHANNEL.fullmatch(stem(file))
        if match:
            groups[match[1]].append((int(match[2]), file))
    return {name: tuple(f for _, f in sorted(group)) for name, group in groups.items()}


def _patients_beside(data: Path) -> dict[Path, str]:
    table = data.resolve().parent / "cases.csv"
    if not table.is_file():
        return {}
    rows = read_rows(table)
    return {file.resolve(): patient_of(row) for row in rows if patient_of(row) for file in image_files(table, row)}
