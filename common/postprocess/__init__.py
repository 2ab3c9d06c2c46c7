"""What happens to a net's output before it is judged or handed out, by name and in the study's order.

Steps on probabilities come first, then the most probable class is taken, then come the steps on the label map
(`steps.py`). Validation, test and prediction all go through here. To add one: write a class here, with its card
(`common/cards.py`), and add a line to `common/names.py`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.names import POSTPROCESS
from common.postprocess.steps import LabelStep, ProbabilityStep
from common.section import Choice
from common.study import Study


class Postprocess:
    """The study's steps.

    Args:
        study: Its `postprocess` and the names of its labels.
    """

    def __init__(self, study: Study) -> None:
        self._labels = study.data.labels
        steps = [make(choice) for choice in study.postprocess]
        self._before = [step for step in steps if isinstance(step, ProbabilityStep)]
        self._after = [step for step in steps if isinstance(step, LabelStep)]

    def probabilities(self, values: Tensor, image: Tensor, spacing: Sequence[float]) -> Tensor:
        """What becomes of probabilities `(K, *S)` of `image` `(C, *S)`, both on the plan's grid and one device."""
        for step in self._before:
            values = step(values, image, spacing)
        return values

    def label_map(self, label: NDArray[np.uint8], spacing: Sequence[float]) -> NDArray[np.uint8]:
        """What becomes of the label map `(*S)` on the case's own grid."""
        for step in self._after:
            label = step(label, spacing, self._labels)
        return label

    @property
    def sees_image(self) -> bool:
        """Whether any step works on probabilities."""
        return bool(self._before)


def make(choice: Choice) -> LabelStep | ProbabilityStep:
    """The step that the study chose."""
    step: LabelStep | ProbabilityStep = POSTPROCESS.get(choice.name)(**choice.options)
    return step
