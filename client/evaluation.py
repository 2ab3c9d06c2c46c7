"""The judge: how well a model segments cases that it has not seen, each on its own grid against its own annotation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.data.cache import load_truth
from client.data.volume import CachedCase
from client.inference import segment
from client.metrics import Mean, dice, mean
from common.study import Study

Predict = Callable[[CachedCase], NDArray[np.uint8]]


@dataclass(frozen=True)
class CaseResult:
    """What one case scored. It never leaves the site.

    Attributes:
        case: The case's id.
        patient: The patient's id.
        dice: One per label of the study; NaN where neither truth nor prediction has it.
    """

    case: str
    patient: str
    dice: tuple[float, ...]


def evaluate(
    model: nn.Module | Sequence[nn.Module] | Predict,
    cases: Sequence[CachedCase],
    study: Study,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> list[CaseResult]:
    """Judge a model on `cases`, one case in memory at a time.

    Args:
        model: A net; several, whose mean probabilities are judged; or a function from a case to its label map, uint8
            on the case's own grid.
        cases: In the order of the results.
        study: Labels, patch, precision.
        device: Where the nets are.
        progress: Called after each case with the number of cases done and of all cases.
    """
    predict = _predictor(model, study, device)
    results = []
    for done, case in enumerate(cases, start=1):
        scores = dice(predict(case), np.asarray(load_truth(case)), len(study.data.labels))
        results.append(CaseResult(case.id, case.patient, scores))
        if progress is not None:
            progress(done, len(cases))
    return results


def label_means(results: Sequence[CaseResult], labels: Sequence[str]) -> dict[str, Mean]:
    """Mean Dice of each label over the cases that have it, and how many those are."""
    return {label: mean(r.dice[i] for r in results) for i, label in enumerate(labels)}


def summary(results: Sequence[CaseResult], study: Study, small: int = 1) -> dict[str, float]:
    """The numbers of an evaluation that a study may hand on: means and counts, no case.

    Args:
        results: Of the cases.
        study: Its labels.
        small: What fewer cases have is left out, as if none had it: from the other numbers nobody can find it either.

    Returns:
        `dice.LABEL` and `cases.LABEL`: mean over the cases that have the label, and how many have it; `dice`: the mean
        of those means over the labels that any case has; `num-examples`: the cases with at least one Dice. Always
        finite: a mean over no case is 0, and its count says so.
    """
    every = label_means(results, study.data.labels)
    means = {label: m if m.of >= small else mean(()) for label, m in every.items()}
    told = [i for i, m in enumerate(means.values()) if m.of]
    overall = mean(m.value for m in means.values())
    judged = sum(mean(r.dice[i] for i in told).of > 0 for r in results)
    numbers: dict[str, float] = {"num-examples": judged, "dice": overall.value if overall.of else 0.0}
    for label, m in means.items():
        numbers[f"dice.{label}"] = m.value if m.of else 0.0
        numbers[f"cases.{label}"] = m.of
    return numbers


def _predictor(model: nn.Module | Sequence[nn.Module] | Predict, study: Study, device: torch.device) -> Predict:
    if isinstance(model, nn.Module):
        return lambda case: segment([model], case, study, device)
    if isinstance(model, Sequence):
        return lambda case: segment(model, case, study, device)
    return model
