"""What a label gains: holes that it encloses, gaps that are too narrow."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from common.cards import Card, described
from common.postprocess.steps import Labels, LabelStep, Mask


@described(
    Card(
        title="Hole filling",
        source="Soille 2004, Morphological Image Analysis, doi:10.1007/978-3-662-05088-0, chapter 6",
        suited="Solid organs whose inside the net leaves out, such as a liver around a tumour that has no label.",
    )
)
class FillHoles(LabelStep):
    """Fill the background that each label encloses; other labels within it stay.

    A hole is background from which no path of face neighbours leads to the border of the scan.

    Args:
        labels: Names of the labels that are treated; none: all.
        axis: 3D only: fill every slice across this axis (0 sagittal, 1 coronal, 2 axial) by itself, which also
            closes a tunnel; none: as a whole.
    """

    def __init__(self, *, labels: Labels | None = None, axis: Literal[0, 1, 2] | None = None) -> None:
        super().__init__(labels=labels)
        self.axis = axis

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Option and what is wrong with it in a study of these dimensions and labels."""
        yield from super().misfits(dimensions, labels)
        if self.axis is not None and dimensions == 2:
            yield "axis", "is for 3D; a picture is one slice"

    def mask(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """`mask` and its holes."""
        if self.axis is None:
            filled: Mask = ndimage.binary_fill_holes(mask)
            return filled
        slices = [ndimage.binary_fill_holes(one) for one in np.moveaxis(mask, self.axis, 0)]
        return np.stack(slices, axis=self.axis)


@described(
    Card(
        title="Closing",
        source="Serra 1982, Image Analysis and Mathematical Morphology, chapter II",
        suited="Masks with cracks and notches; thin structures that are broken up by coarse voxels.",
    )
)
class Closing(LabelStep):
    """Close gaps of each label into which a ball of the given radius does not fit.

    The ball is one of millimetres, so it has fewer voxels along a coarse axis. The scan goes on as background beyond
    its border.

    Args:
        labels: Names of the labels that are treated; none: all.
        radius: Of the ball, in mm; in pixels for pictures without a physical size.
    """

    def __init__(self, *, labels: Labels | None = None, radius: Annotated[float, Field(gt=0, le=50)]) -> None:
        super().__init__(labels=labels)
        self.radius = radius

    def margin(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """None: a closed mask does not leave the bounding box of the mask."""
        return (0,) * len(spacing)

    def mask(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """`mask`, dilated and eroded by the ball."""
        # Voxels exactly one radius away belong to the ball, however their distance is rounded.
        radius = self.radius * (1 + 1e-6)
        room = [int(radius / s) + 1 for s in spacing]
        padded = np.pad(mask, [(n, n) for n in room])
        dilated = ndimage.distance_transform_edt(~padded, spacing) <= radius
        closed: Mask = ndimage.distance_transform_edt(dilated, spacing) > radius
        return closed[tuple(slice(n, -n) for n in room)]
