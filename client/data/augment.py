"""Training samples are varied: position, size and look change as they do between patients and scanners.

The recipe is nnU-Net's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, supplement 4) in a milder form: turning
and scaling, Gaussian noise, blur, brightness, contrast, low resolution and gamma. Two things differ on purpose.

Nothing is mirrored. Cases stand in RAS+, so a mirror turns a left kidney into a right one, and puts heart and liver
on the wrong sides, while the label map keeps their names. A study of symmetrical structures loses little without it;
a study of sides would be spoilt by it.

Turns are small (±15°) because all cases stand in one orientation, and they are turns in millimetres: on a plan with
5 mm slices the slices are not sheared.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.transforms.intensity.array import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandScaleIntensityFixedMean,
)
from monai.transforms.spatial.array import AffineGrid, RandSimulateLowResolution, Resample
from monai.transforms.transform import RandomizableTransform
from monai.utils.type_conversion import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from common.seeds import generator

MOVED = 0.3  # share of the samples that are turned and scaled
TURN = math.radians(15)
SCALE = 1.2  # structures appear up to this much larger or smaller
# Axes whose voxel size or patch side differ by more are not turned into each other (nnU-Net's limit for anisotropy).
ANISOTROPY = 3.0


class Augmentation:
    """How one sample is varied; a pure function of its seed, so any thread or process gives the same bytes.

    A turned patch needs voxels from outside the patch. So the caller cuts `margin` more voxels on either side of each
    axis; they are zero for most samples.

    Args:
        seed: The sample's own seed.
        patch: Size of the patch in voxels.
        spacing: Voxel size in mm; none takes voxels as cubes.

    Attributes:
        matrix: `(d, d)` from patch to scan, in voxels from the centre; None where the sample is not moved.
        margin: Voxels to add on both sides, per axis.
    """

    def __init__(self, seed: int, patch: Sequence[int], spacing: Sequence[float] | None = None) -> None:
        self._seed = seed
        self._patch = tuple(patch)
        rng = generator(seed, "move")
        self.matrix = None if rng.random() >= MOVED else _matrix(rng, self._patch, spacing)
        self.margin = (0,) * len(self._patch)
        if self.matrix is not None:
            half = (np.array(self._patch) - 1) / 2
            reach = np.abs(self.matrix) @ half - half
            self.margin = tuple(int(m) for m in np.maximum(0, np.ceil(reach)))

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The varied patch.

        Args:
            image: `(C, *S)` float32, S = patch + 2 · margin.
            label: `(*S)` of the same place.

        Returns:
            Image `(C, *patch)` float32 and label `(*patch)` in the label's own type.
        """
        if self.matrix is not None:
            image, label = self._moved(image, label, self.matrix)
        state = np.random.RandomState(self._seed & 0xFFFFFFFF)
        varied: Tensor = image
        for transform in _look(len(self._patch)):
            transform.set_random_state(state=state)
            varied = transform(varied)
        return convert_to_tensor(varied, dtype=torch.float32, track_meta=False), label

    def _moved(self, image: Tensor, label: Tensor, matrix: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        d = len(self._patch)
        affine = np.eye(d + 1)
        affine[:d, :d] = matrix
        grid, _ = AffineGrid(affine=affine)(spatial_size=self._patch)
        # The margin makes the box as large as the moved patch; "border" only meets rounding at its faces.
        resample = Resample(padding_mode="border", dtype=np.float32)
        moved = resample(image, grid=grid, mode="bilinear")
        values = resample(label[None].to(torch.float32), grid=grid, mode="nearest")
        plain = [convert_to_tensor(t, track_meta=False) for t in (moved, values)]
        return plain[0], plain[1][0].to(label.dtype)


def _matrix(rng: np.random.Generator, patch: Sequence[int], spacing: Sequence[float] | None) -> NDArray[np.float64]:
    """A turn in every plane of two alike axes, and one scale for all axes."""
    d = len(patch)
    size = np.ones(d) if spacing is None else np.array(spacing)
    turn = np.eye(d)
    for i, j in itertools.combinations(range(d), 2):
        angle = rng.uniform(-TURN, TURN)
        if max(_ratio(size[i], size[j]), _ratio(patch[i], patch[j])) > ANISOTROPY:
            continue
        plane = np.eye(d)
        plane[[i, i, j, j], [i, j, i, j]] = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
        turn = turn @ plane
    scale = SCALE ** rng.uniform(-1, 1)
    matrix: NDArray[np.float64] = scale * turn * size[None, :] / size[:, None]
    return matrix


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _look(dimensions: int) -> tuple[RandomizableTransform, ...]:
    """What scanners and protocols change. Made anew for every sample: a transform keeps its random state inside."""
    sigma = (0.5, 1.0)
    linear = "trilinear" if dimensions == 3 else "bilinear"
    return (
        RandGaussianNoise(prob=0.1, std=0.2),  # of a standard deviation between 0 and this
        RandGaussianSmooth(prob=0.15, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
        RandScaleIntensity(prob=0.15, factors=0.25),
        RandScaleIntensityFixedMean(prob=0.15, factors=0.25, preserve_range=True),
        RandSimulateLowResolution(prob=0.15, zoom_range=(0.5, 1.0), upsample_mode=linear),
        RandAdjustContrast(prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        RandAdjustContrast(prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    )
