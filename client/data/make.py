"""One case: its files read, checked, put on the plan's grid and kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data import cache as cached
from client.data import preprocess
from client.data.assemble import channels_of, flat, joined, on_plan, one_channel
from client.data.gate.cases import check_images, check_mask
from client.data.gate.files import unreadable
from client.data.gate.summary import summarise
from client.data.labels import LabelMap, label_map
from client.data.named import Labelled, NamedLabels, label_volume, named_labels
from client.data.readers import read
from client.data.structures import has_names
from client.data.volume import Case, Finding, Volume
from client.site import SiteConfig
from common.errors import DataError
from common.labels import IGNORE
from common.seeds import generator
from common.study import Study

# Part of every key: raise it when the same files would give other arrays.
FORMAT = 4
# Labelled voxels kept per case as centres for patches.
FOREGROUND = 10_000


@dataclass(frozen=True)
class SiteLabels:
    """How a site's label files become a study's labels.

    Attributes:
        numbers: For label maps, whose voxels are numbers.
        names: For files whose structures have names.
    """

    numbers: LabelMap
    names: NamedLabels


def site_labels(study: Study, site: SiteConfig) -> SiteLabels:
    """The rules of `site` for the labels of `study`; raises StudyError when they do not fit it."""
    numbers = label_map(study.data.labels, site.labels, study.data.ignore, site.ignored)
    return SiteLabels(numbers, named_labels(study.data, site))


def key_of(study: Study, labels: SiteLabels, named: bool, images: Sequence[str], label: str) -> str:
    """The name under which a case is kept: SHA-256 over all that its arrays follow from.

    Args:
        study: Its plan and data are used.
        labels: The site's label rules.
        named: Whether the structures of the label file have names.
        images: Hashes of the images.
        label: Hash of the label file.
    """
    numbers = labels.numbers
    rules = labels.names.key() if named else [numbers.rules, numbers.grey, numbers.ignored, numbers.unlabelled]
    parts = {
        "format": FORMAT,
        "plan": study.plan.model_dump(mode="json"),
        "data": study.data.model_dump(mode="json"),
        "labels": rules,
        "images": list(images),
        "label": label,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make(case: Case, study: Study, labels: SiteLabels, folder: Path) -> list[Finding]:
    """The errors of `case`; if there are none, its arrays are put in `folder`."""
    data = study.data
    try:
        images = channels_of(case.images, study)
        errors = check_images(case, images, len(data.channels), data.dimensions)
        if errors:
            return errors
        labelled = _labelled(case, images[0], data.dimensions, labels)
        errors = [finding for finding in labelled.findings if finding.severity == "error"]
        if not errors:
            _store(case.label, joined(images), labelled, study, folder)
    except DataError as error:
        return [unreadable(case, error)]
    return errors


def _labelled(case: Case, image: Volume, dimensions: int, labels: SiteLabels) -> Labelled:
    path = case.label or Path()
    if has_names(path):
        return label_volume(path, case.images[0], image, labels.names, case=case.id)
    stored = one_channel(flat(read(path, label=True), dimensions))
    errors = check_mask(case, path, stored, image, dimensions, labels.numbers)
    if errors:
        return Labelled(np.zeros((), np.uint8), (), tuple(errors))
    return Labelled(labels.numbers.apply(stored.array[0]), labels.numbers.unlabelled, ())


def _store(path: Path | None, image: Volume, labelled: Labelled, study: Study, folder: Path) -> None:
    seen, grids = on_plan(image, study.plan)
    truth = labelled.array
    label = preprocess.resample_label(truth, grids["own"], grids["plan"])
    raw = image.array.astype(np.float32, copy=False)
    picture = fingerprint(raw)
    content = hashlib.sha256(picture.encode() + np.ascontiguousarray(truth).tobytes()).hexdigest()
    arrays: dict[str, NDArray[Any]] = {
        "image": seen,
        "label": np.ascontiguousarray(label),
        "truth": np.ascontiguousarray(truth),
        "foreground": _foreground(label, content),
    }
    notes = [[f.code, f.what.removeprefix(f"{path}: "), f.remedy] for f in labelled.findings]
    counts = [np.bincount(a.ravel(), minlength=study.classes)[1 : study.classes].tolist() for a in (truth, label)]
    meta: preprocess.Meta = {
        "image": picture, "content": content, **grids, "voxels": counts[0], "plan_voxels": counts[1],
        "unlabelled": list(labelled.unlabelled), "notes": notes,
        "gate": summarise(raw, truth, image.spacing, len(study.data.labels)),
    }  # fmt: skip
    cached.store(folder, arrays, meta)


def fingerprint(image: NDArray[np.float32]) -> str:
    """SHA-256 of the shape and the voxels `(C, *S)` of a scan as it was read, before the plan changes it.

    A scan that was copied, compressed again or saved with another header has the same fingerprint.
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image, dtype="<f4").data)
    return digest.hexdigest()


def _foreground(label: NDArray[np.uint8], content: str) -> NDArray[np.int32]:
    """`(N, dims + 1)`: up to FOREGROUND labelled voxels, alike many of each label where there are, and their labels.

    Equal contents draw the same ones.
    """
    values = [int(v) for v in np.unique(label) if v not in (0, IGNORE)]
    random = generator(0, "foreground", content)
    chosen = [np.empty((0, label.ndim + 1), dtype=np.int64)]
    for value in values:
        voxels = np.argwhere(label == value)
        wanted = min(len(voxels), FOREGROUND // len(values))
        some = voxels[np.sort(random.choice(len(voxels), wanted, replace=False))]
        chosen.append(np.column_stack([some, np.full(wanted, value)]))
    return np.concatenate(chosen).astype(np.int32)
