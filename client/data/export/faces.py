"""Whether an image may show a face: a face can be rebuilt from a head scan and recognised (PS3.15 E.3.2)."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data.export.vocabulary import words
from client.data.readers import image2d, read
from client.data.volume import Source

# Modalities of volumes that hold the skin.
_VOLUMES = ("CT", "MR", "PT")
_HEAD_PARTS = words(
    "BRAIN CEREBRUM CHEEK CIRCLEOFWILLIS EAR EYE EYELID FACE HEAD HEADNECK IAC JAW MAXILLA MOUTH NOSE ORBIT PAROTID "
    "SCALP SELLA SINUS SKULL TMJ TONGUE WHOLEBODY ZYGOMA"
)
_HEAD_WORDS = re.compile(
    r"head|brain|skull|cran|fac(e|ial)|neuro|cereb|orbit|sinus|pituit|whole.?body|kopf|hirn|sch(ä|ae)del|t[êe]te|cabe[zç]a"
    r"|mprage|flair",
    re.I,
)
# mm: two sides of a volume must be this long for it to hold a face from brow to chin.
_FACE = 110.0


def face(source: Source) -> str:
    """`face` if the header says that it is a head, `face-unknown` if nothing says that it is none; else empty.

    Absence is no proof: what says nothing, and is large enough for a face, counts.

    Args:
        source: An image, not a label map.

    Raises:
        DataError: A file cannot be read.
    """
    if isinstance(source, Path):
        return "face-unknown" if _large_enough(source) else ""
    if source.modality not in _VOLUMES or len(source.shape) < 3 or _sides(source.shape, source.affine)[-2] < _FACE:
        return ""
    part = str(source.facts.get("body_part", "")).strip().upper()
    if part:
        return "face" if part in _HEAD_PARTS else ""
    texts = [source.description, *(str(source.facts.get(name, "")) for name in ("protocol", "study_description"))]
    if not any(texts):
        return "face-unknown"
    return "face" if any(_HEAD_WORDS.search(text) for text in texts) else ""


def _large_enough(path: Path) -> bool:
    if path.name.lower().endswith(image2d.SUFFIXES):
        return False
    volume = read(path)
    return _sides(volume.array.shape[1:], volume.affine)[-2] >= _FACE


def _sides(shape: tuple[int, ...], affine: NDArray[np.float64]) -> list[float]:
    """Lengths of a grid's sides in mm, ascending."""
    steps = np.linalg.norm(affine[:3, : len(shape)], axis=0)
    return sorted(float(n * step) for n, step in zip(shape, steps, strict=True))
