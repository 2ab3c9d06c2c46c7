"""Which connected components of a label stay."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy import ndimage

from common.cards import Card, described
from common.postprocess.steps import Connectivity, Labels, LabelStep, Mask, neighbourhood, wrong_connectivity


@described(
    Card(
        title="Largest component",
        source="Rosenfeld & Pfaltz 1966, doi:10.1145/321356.321357 (connected components)",
        suited="An organ of which a patient has one (or a known number), against islands elsewhere.",
    )
)
class LargestComponent(LabelStep):
    """Keep the largest connected component of each label; the rest becomes background.

    Of equally large components the one that comes first in the array stays.

    Args:
        labels: Names of the labels that are treated; none: all.
        connectivity: Neighbours of a voxel: 6, 18 or 26 in 3D, 4 or 8 in 2D; none: the most there are.
        keep: How many components stay, e.g. 2 where one label is both lungs.
    """

    def __init__(
        self,
        *,
        labels: Labels | None = None,
        connectivity: Connectivity | None = None,
        keep: Annotated[int, Field(ge=1, le=100)] = 1,
    ) -> None:
        super().__init__(labels=labels)
        self.connectivity = connectivity
        self.keep = keep

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Option and what is wrong with it in a study of these dimensions and labels."""
        yield from super().misfits(dimensions, labels)
        yield from wrong_connectivity(self.connectivity, dimensions)

    def mask(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """The `keep` largest components of `mask`."""
        parts, n = ndimage.label(mask, neighbourhood(self.connectivity, mask.ndim))
        sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
        largest = np.argsort(-sizes, kind="stable")[: self.keep] + 1
        kept: Mask = np.isin(parts, largest)
        return kept


@described(
    Card(
        title="Removal of small objects",
        source="Rosenfeld & Pfaltz 1966, doi:10.1145/321356.321357 (connected components)",
        suited="Lesions and nuclei, of which there may be any number, against specks too small to be one.",
    )
)
class RemoveSmall(LabelStep):
    """Remove the connected components of each label that are smaller than a volume.

    Args:
        labels: Names of the labels that are treated; none: all.
        volume: Smallest that stays, in mm³; in 2D an area in mm², for pictures without a physical size in pixels.
        connectivity: Neighbours of a voxel: 6, 18 or 26 in 3D, 4 or 8 in 2D; none: the most there are.
    """

    def __init__(
        self,
        *,
        labels: Labels | None = None,
        volume: Annotated[float, Field(gt=0, le=1e7)],
        connectivity: Connectivity | None = None,
    ) -> None:
        super().__init__(labels=labels)
        self.volume = volume
        self.connectivity = connectivity

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Option and what is wrong with it in a study of these dimensions and labels."""
        yield from super().misfits(dimensions, labels)
        yield from wrong_connectivity(self.connectivity, dimensions)

    def mask(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """The components of `mask` that are large enough."""
        parts, n = ndimage.label(mask, neighbourhood(self.connectivity, mask.ndim))
        volumes = np.bincount(parts.ravel(), minlength=n + 1) * np.prod(spacing)
        # Eight voxels of (0.1 mm)³ are 0.008 mm³, whatever their product is rounded to.
        stays = volumes >= self.volume * (1 - 1e-9)
        stays[0] = False
        kept: Mask = stays[parts]
        return kept
