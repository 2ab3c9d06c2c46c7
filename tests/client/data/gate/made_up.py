"""Made-up scans for the gate: bodies with two organs, no two alike, and heads with and without a face."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.data import preprocess
from client.data.gate.summary import summarise
from client.data.preprocess import Meta
from client.data.volume import Case

Scan = tuple[NDArray[np.float32], NDArray[np.uint8]]


def body(seed: int, shape: tuple[int, ...] = (40, 36, 24)) -> Scan:
    """Image `(1, *S)` and labels: a large organ (1) on the right, a small one (2) left of it and behind."""
    random = np.random.default_rng(seed)
    places = np.indices(shape, dtype=np.float64) / np.array(shape).reshape(-1, *[1] * len(shape))

    def ball(centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
        middle = np.array(centre[: len(shape)]) + random.normal(0, 0.01, len(shape))
        distance = np.sqrt(((places - middle.reshape(-1, *[1] * len(shape))) ** 2).sum(axis=0))
        return np.asarray(distance < radius * random.uniform(0.92, 1.08))

    trunk, large, small = ball((0.5, 0.5, 0.5), 0.45), ball((0.66, 0.55, 0.62), 0.17), ball((0.3, 0.38, 0.4), 0.09)
    image = 100.0 * trunk + 60.0 * large + 110.0 * small
    # What differs from patient to patient: texture in and around the organs.
    texture = ndimage.gaussian_filter(random.normal(size=shape), 2.0)
    image += 25 * trunk * texture / texture.std() + random.normal(0, 4, shape)
    truth = np.where(small, 2, np.where(large, 1, 0)).astype(np.uint8)
    return image[np.newaxis].astype(np.float32), truth


def case_of(number: int, patient: str = "") -> Case:
    name = f"c{number:02d}"
    return Case(name, patient or f"p{number:02d}", (Path(f"{name}.nii.gz"),), Path(f"{name}-mask.nii.gz"))


def meta_of(scan: Scan, spacing: tuple[float, ...] | None = None) -> Meta:
    """What is kept of a prepared case."""
    image, truth = scan
    size = spacing or (1.0,) * truth.ndim
    own = preprocess.grid(truth.shape, np.diag([*size, *[1.0] * (4 - truth.ndim)]))
    voxels = [int((truth == n).sum()) for n in (1, 2)]
    return {"image": str(hash(image.tobytes())), "content": "", "own": own, "plan": own, "voxels": voxels,
            "plan_voxels": voxels, "unlabelled": [], "notes": [], "gate": summarise(image, truth, size, 2)}  # fmt: skip


def site(number: int = 14) -> list[tuple[Case, Meta]]:
    """The cases of a site in which nothing is wrong."""
    return [(case_of(i), meta_of(body(i))) for i in range(number)]


def head(nose: float, width: float = 75, step: float = 2.5, wide: float = 290) -> NDArray[np.float32]:
    """`(X, Y, Z)` a CT of an egg of a head (mm half-width) in air, with a nose that stands out by `nose` mm."""
    n = round(wide / step)
    x, y, z = (np.indices((n, n, round(200 / step))) + 0.5) * step
    x, y, z = x - wide / 2, y - wide / 2, z - 100
    skull = (x / width) ** 2 + (y / (width * 1.27)) ** 2 + (z / (width * 1.33)) ** 2 < 1
    ridge = width * 1.27 * np.sqrt(np.clip(1 - (z / (width * 1.33)) ** 2, 0, 1))
    tip = (np.abs(x) < 14) & (y > 0) & (y < ridge + nose) & (np.abs(z + 15) < 18)
    inside = skull | (tip if nose else np.zeros_like(skull))
    return np.where(inside, 40.0, -1000.0).astype(np.float32)
