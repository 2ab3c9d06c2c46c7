"""One scan under two patients: it could be learnt from in training and asked for in the test."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from client.data.gate import fingerprint
from client.data.gate.codes import finding
from client.data.gate.words import axis_names
from client.data.preprocess import Meta
from client.data.volume import Case, Finding

# Likeness (absolute correlation of fingerprints) from which two scans are one. Of 208 000 pairs of other patients in
# three sets, boxes around one structure among them, none is above 0.90; copies: docs/gate-measured.md.
SAME = 0.92
_ROWS = 512


def check_duplicates(cases: Sequence[tuple[Case, Meta]]) -> list[Finding]:
    """`duplicate` and `near-duplicate`: of another patient; `repeated`: twice the same image of one patient."""
    found, exact = [], set()
    first: dict[str, Case] = {}
    for case, meta in cases:
        other = first.setdefault(meta["image"], case)
        if other.id == case.id:
            continue
        exact.add(frozenset((case.id, other.id)))
        if other.patient == case.patient:
            found.append(finding("repeated", case.id, f"{case.images[0]}: the same image as {other.images[0]}"))
        else:
            found.append(duplicate(case, other))
    for one, two, axes in _pairs(cases):
        earlier, later = cases[one][0], cases[two][0]
        if earlier.patient == later.patient or frozenset((earlier.id, later.id)) in exact:
            continue
        names = axis_names(later, len(cases[two][1]["own"]["shape"]))
        how = f", mirrored along {' and '.join(names[a] for a in axes)}" if axes else ""
        what = (
            f"{later.images[0]}: nearly the same image as {earlier.images[0]}{how}, "
            f"but of patient {later.patient}, not {earlier.patient}"
        )
        found.append(finding("near-duplicate", later.id, what))
    return found


def duplicate(case: Case, first: Case) -> Finding:
    """`duplicate`: the image of another patient's case, voxel for voxel; it could stand in training and test."""
    what = f"{case.images[0]}: the same image as {first.images[0]}, but of patient {case.patient}, not {first.patient}"
    return finding("duplicate", case.id, what)


def _pairs(cases: Sequence[tuple[Case, Meta]]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Earlier case, later case and the axes along which one is the other's mirror image."""
    for dimensions in (2, 3):
        chosen = [i for i, (_, meta) in enumerate(cases) if len(meta["own"]["shape"]) == dimensions]
        if chosen:
            texts = [cases[i][1]["gate"]["fingerprint"] for i in chosen]
            vectors = np.array([fingerprint.decode(text, dimensions).ravel() for text in texts])
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            for one, two, axes in _alike(vectors, dimensions):
                yield chosen[one], chosen[two], axes


def _alike(vectors: NDArray[np.float32], dimensions: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Rows that are one scan. The likeness under each mirroring is a sum over the frequencies' parities, ± 1 each."""
    shape = (fingerprint.FREQUENCIES[dimensions],) * dimensions
    parity = (np.indices(shape) % 2).reshape(dimensions, -1)
    classes = [
        np.flatnonzero((np.array(p) == parity.T).all(axis=1)) for p in itertools.product((0, 1), repeat=dimensions)
    ]
    flips = [(axes, [float(sign.ravel()[members[0]]) for members in classes])
             for axes, sign in fingerprint.signs(dimensions)]  # fmt: skip
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        shares = [vectors[rows, members] @ vectors[:, members].T for members in classes]
        seen: set[tuple[int, int]] = set()
        for axes, factors in flips:
            like = np.abs(sum(f * share for f, share in zip(factors, shares, strict=True)))
            for two, one in np.argwhere(like > SAME):
                pair = (int(one), int(two) + start)
                if pair[0] < pair[1] and pair not in seen:
                    seen.add(pair)
                    yield *pair, axes
