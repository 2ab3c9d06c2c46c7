"""The judge: how well a model segments cases that it has not seen, each on its own grid against its own annotation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.data.cache import load_meta, load_truth
from client.data.volume import CachedCase
from client.inference import segment
from client.metrics import Mean, mean, measure, present, quantiles
from common.metrics import DICE, QUARTILES, TOLD, WORST, Metric, Spread, count_key, score_key, spread_stats
from common.study import Study

Predict = Callable[[CachedCase], NDArray[np.uint8]]


@dataclass(frozen=True)
class CaseResult:
    """What one case scored. It never leaves the site.

    Attributes:
        case: The case's id.
        patient: The patient's id.
        scores: By metric one value per label of the study; NaN where it has none.
    """

    case: str
    patient: str
    scores: Mapping[str, tuple[float, ...]]

    @property
    def dice(self) -> tuple[float, ...]:
        """One per label; NaN where neither truth nor prediction has it."""
        return self.scores[DICE]


def evaluate(
    model: nn.Module | Sequence[nn.Module] | Predict,
    cases: Sequence[CachedCase],
    study: Study,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> list[CaseResult]:
    """Judge a model on `cases`, one case in memory at a time; distances in mm, with `plan.size` in pixels.

    Args:
        model: A net; several, whose mean probabilities are judged; or a function from a case to its label map, uint8
            on the case's own grid.
        cases: In the order of the results.
        study: Labels, patch, precision.
        device: Where the nets are.
        progress: Called after each case with the number of cases done and of all cases.
    """
    predict, metrics, labels = _predictor(model, study, device), study.metrics(), study.data.labels
    results = []
    for done, case in enumerate(cases, start=1):
        spacing = load_meta(case)["own"]["spacing"]
        if study.plan.size is not None:
            # Pictures without a physical size, the study says: what one file may claim must not mix with the others.
            spacing = [1.0] * len(spacing)
        scores = measure(predict(case), np.asarray(load_truth(case)), spacing, labels, metrics)
        results.append(CaseResult(case.id, case.patient, scores))
        if progress is not None:
            progress(done, len(cases))
    return results


def label_means(results: Sequence[CaseResult], labels: Sequence[str]) -> dict[str, Mean]:
    """Mean Dice of each label over the cases that have it, and how many those are."""
    return {label: mean(r.dice[i] for r in results) for i, label in enumerate(labels)}


def summary(results: Sequence[CaseResult], study: Study, small: int = 1) -> dict[str, float]:
    """The numbers of an evaluation that a study may hand on: means, quartiles and counts.

    Args:
        results: Of the cases.
        study: Its labels, metrics and what is told of their spread.
        small: What fewer cases have is left out, as if none had it: from the other numbers nobody can find it either.

    Returns:
        `dice.LABEL` and `cases.LABEL`: mean over the cases that have the label, and how many have it; `dice`: the mean
        of those means over the labels that any case has; `num-examples`: the cases with at least one Dice;
        `METRIC.LABEL` and `METRIC.LABEL.told` of the other metrics; of all of them the spread, see `score_limits`.
        Always finite: what is said of no case is 0, and its count (or `told`) says so.
    """
    every = label_means(results, study.data.labels)
    means = {label: m if m.of >= small else mean(()) for label, m in every.items()}
    told = [i for i, m in enumerate(means.values()) if m.of]
    overall = mean(m.value for m in means.values())
    judged = sum(mean(r.dice[i] for i in told).of > 0 for r in results)
    numbers: dict[str, float] = {"num-examples": judged, "dice": overall.value if overall.of else 0.0}
    for i, (label, m) in enumerate(means.items()):
        numbers[count_key(label)] = m.of
        for name, metric in study.metrics().items():
            values = present(r.scores[name][i] for r in results)
            enough = bool(m.of) and len(values) >= small
            if name != DICE:
                numbers[score_key(name, label, TOLD)] = float(enough)
            found = _spread(values, metric, study.evaluation.spread) if enough else {}
            stats = ("", *spread_stats(study.evaluation.spread))
            numbers |= {score_key(name, label, what): found.get(what, 0.0) for what in stats}
    return numbers


def _spread(values: Sequence[float], metric: Metric, spread: Spread) -> dict[str, float]:
    """The mean of at least one value and, as far as it is wanted, what tells of the spread."""
    found = {"": mean(values).value}
    if spread != "none":
        found |= dict(zip(QUARTILES, quantiles(values, QUARTILES.values()), strict=True))
    if spread == "worst":
        found[WORST] = max(values, key=metric.distance)
    return found


def _predictor(model: nn.Module | Sequence[nn.Module] | Predict, study: Study, device: torch.device) -> Predict:
    if isinstance(model, nn.Module):
        return lambda case: segment([model], case, study, device)
    if isinstance(model, Sequence):
        return lambda case: segment(model, case, study, device)
    return model
