"""A phantom patient: smooth organs that can be asked, at any point in space, what tissue is there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Study labels of the phantom, in the order of their values in the label map (liver 1, kidneys 2).
ORGANS = ("liver", "kidneys")

# Tissue numbers in a tissue map, and the signal that each gives to the usual scanner.
AIR, BODY, LIVER, KIDNEY, SPINE, LESION = range(6)
SIGNAL = np.array([0.0, 0.4, 0.65, 0.85, 1.0, 0.6], np.float32)


@dataclass(frozen=True)
class Ellipsoid:
    """A tissue inside `sum(((x - centre) / radii)²) < 1`, mm in RAS+ axes."""

    tissue: int
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


@dataclass(frozen=True)
class Patient:
    """Ellipsoids painted one over the other, bent by a few long waves.

    Attributes:
        shapes: Painted in this order.
        waves: `(W, 3)` wave vectors in rad/mm.
        bends: `(W, 3)` displacement of each wave in mm.
        phases: `(W,)` in rad.
        lesion: Signal of this patient's distractors.
    """

    shapes: tuple[Ellipsoid, ...]
    waves: Floats
    bends: Floats
    phases: Floats
    lesion: float

    def tissues(self, points: Floats) -> NDArray[np.uint8]:
        """Tissue numbers `(*S)` at `points` `(*S, 3)`, mm in RAS+ axes."""
        bent = points + np.sin(points @ self.waves.T + self.phases) @ self.bends
        tissue = np.full(points.shape[:-1], AIR, np.uint8)
        for shape in self.shapes:
            distance = (bent - np.array(shape.centre, np.float32)) / np.array(shape.radii, np.float32)
            tissue[np.einsum("...i,...i", distance, distance) < 1] = shape.tissue
        return tissue

    def signal(self) -> Floats:
        """Signal `(6,)` of each tissue number in this patient."""
        signal = SIGNAL.copy()
        signal[LESION] = self.lesion
        return signal


def label_of(tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map of a tissue map: the ORGANS numbered from 1, everything else 0."""
    table = np.zeros(len(SIGNAL), np.uint8)
    table[[LIVER, KIDNEY]] = 1, 2
    return table[tissue]


def random_patient(rng: np.random.Generator, *, scale: float = 1.0, kidneys: Literal[0, 1, 2] = 2) -> Patient:
    """A patient within about 40 mm of the origin; `scale` is the size of the organs relative to the usual."""

    def organ(tissue: int, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Ellipsoid:
        c = np.array(centre) + rng.uniform(-3, 3, 3)
        r = np.array(radii) * scale * rng.uniform(0.85, 1.15, 3)
        return Ellipsoid(tissue, tuple(c.tolist()), tuple(r.tolist()))

    body = Ellipsoid(BODY, (0, 0, 0), (42 * rng.uniform(0.95, 1.02), 36 * rng.uniform(0.95, 1.05), 90))
    # Distractors come first: an organ that meets one covers it, so that they never cut into a label.
    lesions = [
        organ(LESION, (rng.uniform(-26, 26), rng.uniform(-20, 24), rng.uniform(-34, 34)), (5, 5, 5)) for _ in range(5)
    ]
    spine = organ(SPINE, (0, -27, 0), (6, 6, 200))
    liver = organ(LIVER, (17, 7, 6), (17, 20, 20))
    pair = [organ(KIDNEY, (side * 18.0, -17, -10), (8, 8, 15)) for side in (1, -1)]
    return Patient(
        shapes=(body, *lesions, spine, liver, *pair[:kidneys]),
        waves=rng.normal(0, 0.09, (4, 3)).astype(np.float32),
        bends=rng.normal(0, 1.3, (4, 3)).astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 4).astype(np.float32),
        lesion=float(rng.uniform(0.5, 0.85)),
    )
