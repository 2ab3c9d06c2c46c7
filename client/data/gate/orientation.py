"""A case whose patient lies the other way round than the site's others: mirrored, turned, labels exchanged, inverted.

What the site's cases have in common is asked of the cases themselves; where they have nothing in common (boxes around
nodules anywhere in the lung), nothing is said.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.data.gate import fingerprint
from client.data.gate.codes import finding
from client.data.gate.summary import Structure, Summary
from client.data.gate.words import axis_names
from client.data.volume import Case, Finding

# Cases that make a consensus.
FEWEST = 10
# Agreement (cosine with the mean of the others, whitened) of the site's middle case that makes a consensus, and
# that from which a case says the opposite. Clean cases never reach −0.30 in three sets (five sites).
CONSENSUS, OPPOSITE = 0.35, -0.30
# Lowest frequencies per axis that are asked.
_FREQUENCIES = 6
# A direction is one for the whole site if its middle is so many robust standard deviations from 0; a case on the other
# side and as far from the middle again lies the other way round.
_SURE, _FAR = 3.0, 5.0


def check_images(cases: Sequence[tuple[Case, Summary]]) -> list[Finding]:
    """`case-mirrored` and `case-inverted`: what the image shows is the site's usual picture mirrored, or its negative.

    Frequencies that are odd along an axis change their sign when the image is mirrored along it; all do when it is
    inverted.
    """
    if len(cases) < FEWEST:
        return []
    dimensions = len(cases[0][1]["extent"])
    low = (slice(0, _FREQUENCIES),) * dimensions
    spectra = np.array([fingerprint.decode(s["fingerprint"], dimensions)[low] for _, s in cases], dtype=np.float64)
    names, found, inverted = axis_names(cases[0][0], dimensions), [], set()
    for index in _opposite(spectra.reshape(len(cases), -1)):
        case = cases[index][0]
        inverted.add(index)
        found.append(finding("case-inverted", case.id, f"{case.images[0]}: looks like a negative of the site's others"))
    places = np.indices(spectra.shape[1:])
    for axis in range(dimensions):
        odd = places[axis] % 2 == 1
        for index in _opposite(spectra[:, odd]):
            if index not in inverted:
                case = cases[index][0]
                what = f"{case.images[0]}: looks like the site's others mirrored along {names[axis]}"
                found.append(finding("case-mirrored", case.id, what))
    return found


def check_directions(cases: Sequence[tuple[Case, Sequence[Structure | None]]], labels: Sequence[str]) -> list[Finding]:
    """`structure-side`: a label is on the other side of another, or of the scan's middle, than in the other cases."""
    found: dict[str, Finding] = {}
    for first, name in enumerate(labels):
        for second in range(first + 1, len(labels)):
            known = [(case, np.array(a["centre"]) - np.array(b["centre"])) for case, s in cases
                     if (a := s[first]) is not None and (b := s[second]) is not None]  # fmt: skip
            _sides(known, f"{name} against {labels[second]}", found)
        known = [(case, np.array(a["centre"])) for case, s in cases if (a := s[first]) is not None]
        _sides(known, f"{name} in the scan", found)
    return list(found.values())


def _sides(known: Sequence[tuple[Case, NDArray[np.float64]]], what: str, found: dict[str, Finding]) -> None:
    """Add to `found`, by case, those on the other side than the rest."""
    if len(known) < FEWEST:
        return
    values = np.array([direction for _, direction in known])
    middle = np.median(values, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(values - middle), axis=0), 1e-6)
    for axis in np.flatnonzero(np.abs(middle) >= _SURE * spread):
        wrong = (values[:, axis] * np.sign(middle[axis]) < 0) & (
            np.abs(values[:, axis] - middle[axis]) > _FAR * spread[axis]
        )
        for index in np.flatnonzero(wrong).tolist():
            case = known[index][0]
            name = axis_names(case, values.shape[1])[axis]
            text = f"{case.label}: {what} lies the other way round along {name} than in the site's other cases"
            found.setdefault(case.id, finding("structure-side", case.id, text))


def _opposite(spectra: NDArray[np.float64]) -> list[int]:
    """Indices of the cases (rows) that say the opposite of the others, if these agree."""
    number = len(spectra)
    others = (spectra.sum(axis=0) - spectra) / (number - 1)
    scale = np.sqrt(((spectra**2).sum(axis=0) - spectra**2) / (number - 1)) + 1e-9
    mean, own = others / scale, spectra / scale
    lengths = np.linalg.norm(mean, axis=1) * np.linalg.norm(own, axis=1)
    agreement = np.sum(mean * own, axis=1) / np.maximum(lengths, 1e-12)
    if np.median(agreement) < CONSENSUS:
        return []
    return [int(i) for i in np.flatnonzero(agreement < OPPOSITE)]
