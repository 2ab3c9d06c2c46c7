"""The judge: on the own grid, against the truth, case by case; and what may be handed on."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats.mstats import hdquantiles
from torch import nn

from client.data.cache import load_truth
from client.data.volume import CachedCase
from client.evaluation import CaseResult, evaluate, summary
from common.study import Study
from common.wire import evaluate_metric_keys

MakeCase = Callable[..., CachedCase]
MakeStudy = Callable[..., Study]
CPU = torch.device("cpu")


def blank(case: CachedCase) -> NDArray[np.uint8]:
    return np.zeros(load_truth(case).shape, np.uint8)


def perfect(case: CachedCase) -> NDArray[np.uint8]:
    return np.array(load_truth(case))


def constant(classes: int, winner: int) -> nn.Module:
    """A net that sees one class everywhere."""
    net = nn.Conv2d(1, classes, 1)
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(5.0 * torch.eye(classes)[winner])  # type: ignore[union-attr]
    return net


@pytest.fixture
def cases(make_case: MakeCase) -> list[CachedCase]:
    """Labels on a grid of 8 x 8, truth on 16 x 16 that differs from it; the second case has no label."""
    truth = np.zeros((16, 16))
    truth[3:9, 2:13] = 1
    image = np.zeros((1, 8, 8))
    return [
        make_case("full", image, truth[::2, ::2], truth=truth),
        make_case("empty", image, np.zeros((8, 8)), truth=np.zeros((16, 16))),
    ]


def test_judged_on_the_own_grid(cases: list[CachedCase], make_study: MakeStudy) -> None:
    study = make_study((8, 8))
    calls: list[tuple[int, int]] = []
    results = evaluate(perfect, cases, study, CPU, progress=lambda done, of: calls.append((done, of)))
    assert [(r.case, r.patient) for r in results] == [("full", "patient-full"), ("empty", "patient-empty")]
    assert results[0].dice == (1.0,)
    assert math.isnan(results[1].dice[0])
    assert calls == [(1, 2), (2, 2)]
    assert evaluate(blank, cases[:1], study, CPU)[0].dice == (0.0,)


def test_one_net_several_nets_and_a_function_are_judged_alike(cases: list[CachedCase], make_study: MakeStudy) -> None:
    study = make_study((8, 8))
    everywhere = 2 * 66 / (66 + 256)  # the label has 6 x 11 of 16 x 16 voxels
    organ, background = constant(2, 1), constant(2, 0)
    assert evaluate(organ, cases, study, CPU)[0].dice == (pytest.approx(everywhere),)
    assert evaluate(organ, cases, study, CPU)[1].dice == (0.0,)
    assert evaluate([organ, organ, background], cases, study, CPU)[0].dice == (pytest.approx(everywhere),)
    assert evaluate([organ, background, background], cases, study, CPU)[0].dice == (0.0,)


def test_the_studys_post_processing_is_judged_for_one_net_and_for_several(
    make_case: MakeCase, make_study: MakeStudy
) -> None:
    net = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
        net.bias.zero_()  # type: ignore[union-attr]
    image = np.full((1, 16, 16), -1.0)
    image[0, 2:8, 2:8] = 1.0
    truth = image[0] > 0
    image[0, 12:14, 12:15] = 1.0  # 6 pixels that are none of the 36
    case = make_case("a", image, truth)
    cleaned = make_study((16, 16), postprocess=["largest_component"])
    for model in (net, [net, net]):
        assert evaluate(model, [case], make_study((16, 16)), CPU)[0].dice == (pytest.approx(72 / 78),)
        assert evaluate(model, [case], cleaned, CPU)[0].dice == (1.0,)
    # A function is judged as it is.
    assert evaluate(lambda c: (image[0] > 0).astype(np.uint8), [case], cleaned, CPU)[0].dice[0] < 1


def result(*dice: float, **others: tuple[float, ...]) -> CaseResult:
    return CaseResult("c", "p", {"dice": dice, **others})


ONLY_DICE = {"metrics": ["dice"], "spread": "none"}


def test_summary_is_the_mean_over_labels_of_the_mean_over_cases(make_study: MakeStudy) -> None:
    study = make_study((8, 8), labels=["liver", "spleen", "tumour"], evaluation=ONLY_DICE)
    nan = math.nan
    numbers = summary([result(0.8, 0.2, nan), result(0.6, nan, nan), result(nan, nan, nan)], study)
    assert numbers == {
        "num-examples": 2,
        "dice": pytest.approx((0.7 + 0.2) / 2),
        "dice.liver": pytest.approx(0.7),
        "cases.liver": 2,
        "dice.spleen": 0.2,
        "cases.spleen": 1,
        "dice.tumour": 0.0,
        "cases.tumour": 0,
    }


def test_summary_has_the_keys_of_the_schema_and_is_finite(make_study: MakeStudy) -> None:
    metrics = ["sensitivity", "volume_error"]
    nothing, some = (math.nan, math.nan), (1.0, 0.5)
    for spread in ("none", "quartiles", "worst"):
        evaluation = {"metrics": metrics, "spread": spread}
        study = make_study((8, 8), labels=["liver", "spleen"], evaluation=evaluation)
        for values in ([], [nothing], [some]):
            numbers = summary([result(*v, **dict.fromkeys(metrics, v)) for v in values], study)
            assert set(numbers) | {"seconds"} == evaluate_metric_keys(study)
            assert all(math.isfinite(v) for v in numbers.values())


def test_what_is_told_of_the_spread(make_study: MakeStudy) -> None:
    """Eight cases; two have no liver, so that there is nothing to be found in them."""
    nan = math.nan
    dice = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.0, 0.0]
    errors = [-0.5, 0.1, 0.2, 0.0, 0.1, 0.05, nan, nan]
    results = [result(d, volume_error=(e,)) for d, e in zip(dice, errors, strict=True)]
    study = make_study((8, 8), labels=["liver"], evaluation={"metrics": ["volume_error"], "spread": "worst"})
    numbers = summary(results, study, small=5)
    assert numbers["dice.liver"] == pytest.approx(np.mean(dice))
    assert numbers["dice.liver.worst"] == 0.0
    assert numbers["volume_error.liver"] == pytest.approx(np.mean(errors[:6]))
    # Far too small is worse than a little too large.
    assert numbers["volume_error.liver.worst"] == -0.5
    for name, values in (("dice", dice), ("volume_error", errors[:6])):
        spread = [numbers[f"{name}.liver.{q}"] for q in ("q25", "median", "q75")]
        assert spread == pytest.approx(list(hdquantiles(np.array(values), [0.25, 0.5, 0.75])))
    # Six cases have an error: too few to be told of, while all eight have a Dice.
    withheld = summary(results, study, small=7)
    assert withheld["cases.liver"] == 8
    assert {v for k, v in withheld.items() if k.startswith("volume_error.")} == {0.0}
    assert withheld["dice.liver.median"] == numbers["dice.liver.median"]


def test_distances_are_in_the_millimetres_of_the_cases_own_grid_or_in_pixels_without_a_size(
    make_case: MakeCase, make_study: MakeStudy
) -> None:
    truth = np.zeros((24, 24))
    truth[4:16, 4:16] = 1
    case = make_case("wide", np.zeros((1, 24, 24)), truth, spacing=(0.5, 4.0))
    moved = np.roll(truth, 2, axis=1).astype(np.uint8)
    (found,) = evaluate(lambda c: moved, [case], make_study((8, 8)), CPU)
    assert found.scores["hd95"] == (pytest.approx(2 * 4.0),)
    pictures = make_study((8, 8))
    pictures = pictures.model_copy(update={"plan": pictures.plan.model_copy(update={"size": (24, 24)})})
    (found,) = evaluate(lambda c: moved, [case], pictures, CPU)
    assert found.scores["hd95"] == (2.0,)
