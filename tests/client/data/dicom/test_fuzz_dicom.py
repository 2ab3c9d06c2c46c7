"""Real files (pydicom's own), damaged at random: each is read or refused within five seconds, and nothing crashes."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from client.data.dicom.scan import scan
from client.data.readers import read
from client.data.structures import open_structures
from client.data.volume import Stack
from common.errors import DataError
from common.seeds import generator
from tests.client.data.dicom.defects_labels import draw, outlines, seg
from tests.client.data.dicom.good import reasons
from tests.client.data.dicom.mutate import mutated, samples

SECONDS = 5.0
THREADS = 2


def one(folder: Path, image: Stack) -> tuple[str, float]:
    """What became of the one file in `folder`, and how long it took."""
    start = time.monotonic()
    stacks, items, findings = scan(folder)
    result = "nothing" if not findings else findings[0].code
    try:
        for stack in stacks:
            volume = read(stack)
            assert volume.array.ndim in (3, 4)
            assert np.isfinite(volume.affine).all()
            result = "read"
        for item in items:
            if item.kind in ("seg", "rtstruct"):
                structures = open_structures(item.file, image, read(image))
                result = f"{len([structures.mask(s.number) for s in structures.segments])} masks"
    except DataError as error:
        result = reasons(error)[0]
    return result, time.monotonic() - start


def fuzz(number: int, seed: int, folder: Path) -> Counter[str]:
    """How often each outcome was seen."""
    drawn = draw(folder / "image")
    (image,), *_ = scan(folder / "image")
    # Labels of this very image, so that damaged ones come as far as the masks.
    seg(drawn, folder / "seg")
    outlines(drawn, folder / "outlines")
    bases = [path.read_bytes() for path in [*samples(), folder / "seg", folder / "outlines"]]
    seen: Counter[str] = Counter()

    def shot(index: int) -> tuple[str, float]:
        rng = generator(seed, "fuzz", index)
        place = folder / f"f{index}"
        place.mkdir()
        (place / "x.dcm").write_bytes(mutated(bases[index % len(bases)], rng))
        outcome = one(place, image)
        (place / "x.dcm").unlink()
        return outcome

    with ThreadPoolExecutor(THREADS) as pool:
        for index, (result, seconds) in enumerate(pool.map(shot, range(number))):
            assert result != "dicom-crashed", f"file {index} of seed {seed}"
            assert seconds < SECONDS, f"file {index} of seed {seed} took {seconds:.1f} s"
            seen[result] += 1
    return seen


def test_some(tmp_path: Path) -> None:
    seen = fuzz(200, 1, tmp_path)
    # Enough of both, or the damage tests nothing: many samples are objects without pixels that we read.
    assert seen["read"] > 8, seen
    assert seen["dicom-damaged"] > 50, seen


@pytest.mark.full
def test_ten_thousand(tmp_path: Path) -> None:
    seen = fuzz(10_000, 2, tmp_path)
    print(dict(seen))
    assert seen["read"] > 400
