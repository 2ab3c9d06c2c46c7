"""BIDS data sets: `sub-*/[ses-*/]anat/*_T1w.nii.gz` with segmentations under `derivatives/`.

Names are read as the BIDS specification builds them: `key-value` entities joined by `_`, a suffix last.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from client.data.readers import stem, suffix
from client.data.volume import Case
from common.errors import DataError

_DATATYPES = ("anat", "ct", "pet", "micr")
# Entities that a derivative adds to the name of the image it was made from.
_DERIVED = {"desc", "label", "space", "res", "den", "seg", "atlas", "hemi", "from", "to", "mode"}


class Name(NamedTuple):
    """A BIDS file name taken apart: entities, words without a value (a modality inside a label's name), suffix."""

    entities: frozenset[tuple[str, str]]
    words: tuple[str, ...]
    suffix: str

    @property
    def source(self) -> frozenset[tuple[str, str]]:
        """The entities without those that a derivative adds."""
        return frozenset(e for e in self.entities if e[0] not in _DERIVED)


def bids(data: Path, channels: int, names: Sequence[str] = ()) -> list[Case] | None:
    """The cases of a BIDS data set.

    Where a subject has images of several suffixes (T1w, FLAIR), the study's channels choose by `names`: a channel
    named `t1w` or `t1` takes the suffix T1w. The order of files says nothing, so it never decides.

    Labels are `*_dseg` files, or `*_label-…_mask` / `*_label-…_seg` files, under `derivatives/*/sub-*`.

    Raises:
        DataError: Images or labels of one case cannot be told apart; remedy is a table.
    """
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in _files(data):
        name = _parse(file)
        groups[stem(file).rsplit("_", 1)[0]][name.suffix] = file
    if not groups:
        return None
    labels = [(f, n) for f in _files(data / "derivatives", "*/") if _is_label(n := _parse(f))]
    return [_case(id_, images, labels, channels, names) for id_, images in sorted(groups.items())]


def _case(
    id_: str, images: dict[str, Path], labels: list[tuple[Path, Name]], channels: int, names: Sequence[str]
) -> Case:
    image = _parse(next(iter(images.values())))
    mine = [(f, n) for f, n in labels if n.source <= image.entities and _subject(n) == _subject(image)]
    most = max((len(n.source) for _, n in mine), default=0)
    mine = [(f, n) for f, n in mine if len(n.source) == most]
    if len(mine) > 1:
        raise DataError(
            f"{mine[0][0]}: {id_} has {len(mine)} segmentations ({', '.join(f.name for f, _ in mine[:4])}). "
            "List the wanted one per case in a table (CSV: image,label,patient)."
        )
    words = mine[0][1].words if mine else ()
    files = _channels(id_, images, channels, names, words)
    patient = next(f"sub-{value}" for key, value in image.entities if key == "sub")
    return Case(id_, patient, files, mine[0][0] if mine else None)


def _channels(id_: str, images: dict[str, Path], channels: int, names: Sequence[str],
              words: Sequence[str]) -> tuple[Path, ...]:  # fmt: skip
    """One image per channel: the only one, the ones that the channels name, or the one that the label's name names."""
    if len(images) == 1:
        return tuple(images.values())
    by_name = {key: file for kind, file in images.items() for key in (kind.lower(), kind.lower().removesuffix("w"))}
    if names and all(name in by_name for name in names):
        return tuple(by_name[name] for name in names)
    named = [word for word in words if word in images]
    if channels == len(named) == 1:
        return (images[named[0]],)
    raise DataError(
        f"{id_} has the images {', '.join(sorted(images))}, and the study's {channels} channel(s) do not name them. "
        "Name the channels like the images (t1w, flair), or list the files in a table (CSV: image,label,patient)."
    )


def _files(root: Path, above: str = "") -> list[Path]:
    found = [
        f
        for datatype in _DATATYPES
        for pattern in (f"{above}sub-*/{datatype}/*", f"{above}sub-*/ses-*/{datatype}/*")
        for f in root.glob(pattern)
    ]
    return sorted(f for f in found if suffix(f) and f.name.startswith("sub-") and "_" in stem(f))


def _is_label(name: Name) -> bool:
    return name.suffix == "dseg" or (name.suffix in ("mask", "seg") and any(k == "label" for k, _ in name.entities))


def _subject(name: Name) -> set[tuple[str, str]]:
    return {e for e in name.entities if e[0] in ("sub", "ses")}


def _parse(file: Path) -> Name:
    *parts, last = stem(file).split("_")
    pairs = [(key, value) for key, _, value in (p.partition("-") for p in parts) if value]
    return Name(frozenset(pairs), tuple(p for p in parts if "-" not in p), last)
