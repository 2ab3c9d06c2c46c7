"""How alike two label maps are: the metrics of `common/metrics.py`, one value per case and label.

The rule for empty masks, everywhere in fedscan: a label that is in neither map has no value (NaN) and is left out of
every mean, so a case without the structure neither lifts a mean nor lowers it unless the structure was wrongly found
there. What a label scores that is in one map only, each metric says itself. Voxels that nobody labelled are looked at
in neither map. Distances and volumes are in mm and ml of the case's own grid; of pictures without a physical size, in
pixels.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from client.metrics.borders import assd_of, hd95_of, nsd_of
from client.metrics.lesions import lesion_f1_of
from client.metrics.means import Mean, mean, present, quantiles
from client.metrics.overlap import dice, dice_of, iou_of, precision_of, sensitivity_of
from client.metrics.pair import pairs
from client.metrics.volume import millilitres_of, relative_error_of
from common.metrics import Metric

__all__ = ["Mean", "dice", "mean", "measure", "present", "quantiles"]

_MEASURES: dict[str, Callable[..., float]] = {
    "dice": dice_of,
    "iou": iou_of,
    "sensitivity": sensitivity_of,
    "precision": precision_of,
    "hd95": hd95_of,
    "assd": assd_of,
    "nsd": nsd_of,
    "volume_error": relative_error_of,
    "volume_difference": millilitres_of,
    "lesion_f1": lesion_f1_of,
}


def measure(
    prediction: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    spacing: Sequence[float],
    labels: Sequence[str],
    metrics: Mapping[str, Metric],
) -> dict[str, tuple[float, ...]]:
    """Every metric of every label of one case.

    Args:
        prediction: `(*S)` label map on the case's own grid, 2 or 3 axes.
        truth: `(*S)` label map; voxels of the value IGNORE do not count.
        spacing: Voxel size in mm.
        labels: Names of the labels 1, 2, …
        metrics: By name, with their options.

    Returns:
        By metric one value per label; NaN where the metric has none.

    Raises:
        ValueError: The shapes differ.
    """
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for label, pair in zip(labels, pairs(prediction, truth, spacing, len(labels)), strict=True):
        for name, metric in metrics.items():
            values[name].append(_MEASURES[name](pair, **metric.settings(label)))
    return {name: tuple(found) for name, found in values.items()}
