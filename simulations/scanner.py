"""How a phantom hospital images its patients: contrast, noise, bias field, resolution, field of view, orientation."""

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulations.anatomy import AIR, Floats, Patient, label_of

# Voxel size and edge length of the usual scan, mm: 46 voxels a side.
SPACING = 2.0
EXTENT = 92.0


@dataclass(frozen=True)
class Scanner:
    """One hospital's way of imaging. Numbers are what it adds to the usual scan; all 0 is the usual scan.

    Attributes:
        gamma: Log of the exponent of the grey value curve.
        inverted: Share of the scans whose grey scale is upside down, as in pictures stored as MONOCHROME1.
        bias: Amplitude of the smooth brightness field, relative.
        noise: Standard deviation of the noise, in units of the brightest tissue.
        blur: Standard deviation of the point spread, mm.
        pixel: Relative change of the voxel size in plane.
        slices: Relative change of the slice distance.
        view: Relative loss of the field of view.
        organs: Relative change of the patients' organ size.
        missing: Share of the patients who have one kidney or none.
        gain: Log of the factor from signal to stored value.
        orientation: Axis codes of the file.
    """

    gamma: float = 0.0
    inverted: float = 0.0
    bias: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    pixel: float = 0.0
    slices: float = 0.0
    view: float = 0.0
    organs: float = 0.0
    missing: float = 0.0
    gain: float = 0.0
    orientation: str = "RAS"


# Four hospitals that differ from each other in several ways at once, as hospitals do; more sites go round again.
_KINDS = (
    Scanner(),
    Scanner(inverted=0.5, bias=0.05, slices=1.0, missing=0.3, gain=1.0, orientation="LPS"),
    Scanner(gamma=0.7, noise=0.03, blur=1.6, pixel=0.15, organs=0.12, gain=-1.0, orientation="PIR"),
    Scanner(gamma=-0.5, bias=0.07, noise=0.02, view=0.08, organs=-0.1, missing=0.3, orientation="LAS"),
)


def scanner(site: int, difference: float, rng: np.random.Generator) -> Scanner:
    """The scanner of site number `site`, `difference` times as far from the usual one as in the table above."""
    kind = _KINDS[site % len(_KINDS)]
    numbers = [f.name for f in fields(kind) if isinstance(f.default, float)]
    scaled = {name: difference * rng.uniform(0.8, 1.2) * getattr(kind, name) for name in numbers}
    return replace(kind, **scaled, orientation=kind.orientation if difference > 0 else "RAS")


@dataclass(frozen=True)
class Scan:
    """An image and its label map on one grid, RAS+ axes.

    Attributes:
        image: `(X, Y, Z)` int16; Z is 1 for a picture.
        label: `(X, Y, Z)` uint8.
        spacing: Voxel size, mm.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def scan(patient: Patient, by: Scanner, dimensions: Literal[2, 3], rng: np.random.Generator) -> Scan:
    """Image `patient` with scanner `by`."""
    pixel = SPACING * (1 + by.pixel)
    thickness = SPACING * (1 + by.slices) if dimensions == 3 else SPACING
    extent = EXTENT * (1 - by.view)
    shape = (round(extent / pixel), round(extent / pixel), round(extent / thickness) if dimensions == 3 else 1)
    # A thick slice is the mean of thin ones, so that its partial volumes are those of a real one.
    thin = max(1, round(thickness / SPACING))
    spacing = (pixel, pixel, thickness / thin)
    tissue = patient.tissues(_points((shape[0], shape[1], shape[2] * thin), spacing))
    curve = np.power(patient.signal(), np.exp(by.gamma), dtype=np.float32)
    signal = (1 - curve if rng.random() < by.inverted else curve)[tissue]
    signal += _smooth_field(rng, tissue.shape, 4 / SPACING) * np.where(tissue == AIR, 0, 0.03)
    blurred = ndimage.gaussian_filter(signal, [(1.2 + by.blur) / s for s in spacing])
    image = blurred.reshape(*shape, thin).mean(axis=3)
    image *= 1 + (0.05 + by.bias) * _smooth_field(rng, shape, 45 / SPACING)
    image += rng.normal(0, 0.03 + by.noise, shape)
    stored = np.clip(image * 1000 * np.exp(by.gain), -32000, 32000).round().astype(np.int16)
    voxel = (pixel, pixel, thickness)
    return Scan(stored, label_of(patient.tissues(_points(shape, voxel))), voxel)


def _points(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Floats:
    """Voxel centres `(*shape, 3)` in mm, the origin in the middle of the grid."""
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def _smooth_field(rng: np.random.Generator, shape: tuple[int, ...], voxels: float) -> Floats:
    """A random field `shape` of mean 0 and standard deviation 1 that changes over about `voxels` voxels."""
    coarse = rng.normal(size=[max(2, round(n / voxels)) + 2 if n > 1 else 1 for n in shape])
    zoom = [n / c for n, c in zip(shape, coarse.shape, strict=True)]
    field = ndimage.zoom(coarse, zoom, order=3 if min(shape) > 1 else 1, mode="nearest", grid_mode=True)
    normal: Floats = ((field - field.mean()) / field.std()).astype(np.float32)
    return normal
