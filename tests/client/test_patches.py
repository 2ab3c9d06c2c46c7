"""Batches are the same bytes whoever asks; where patches lie; what surrounds a small scan."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data.patches import OPEN_CASES, Batches
from client.data.volume import CachedCase
from common.errors import DataError
from common.labels import IGNORE
from common.study import Study

MakeCase = Callable[..., CachedCase]
MakeStudy = Callable[..., Study]


@pytest.fixture
def cases(make_case: MakeCase) -> list[CachedCase]:
    """Five scans of different sizes; the value of a voxel tells its case (hundreds) and a random fraction."""
    made = []
    for number in range(5):
        rng = np.random.default_rng(number)
        shape = (12 + number, 14, 9 + number)
        image = 100 * number + rng.random((1, *shape))
        made.append(make_case(str(number), image, rng.random(shape) < 0.02))
    return made


def same(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("augment", ["none", "default"])
def test_a_batch_depends_on_its_step_alone(cases: list[CachedCase], make_study: MakeStudy, augment: str) -> None:
    study = make_study((8, 12, 10), training={"augment": augment})
    first = Batches(cases, study, 7)
    forwards = [first.at(t) for t in range(12)]
    backwards = {t: Batches(cases[::-1], study, 7).at(t) for t in reversed(range(12))}
    assert all(same(forwards[t], backwards[t]) for t in range(12))
    assert same(first.at(3), forwards[3])
    assert not any(same(a, b) for a, b in itertools.combinations(forwards, 2))
    assert not same(Batches(cases, study, 8).at(3), forwards[3])


def test_shapes_and_types(cases: list[CachedCase], make_study: MakeStudy) -> None:
    image, label = Batches(cases, make_study((8, 12, 10), training={"augment": "default", "batch": 3}), 1).at(0)
    assert (image.shape, image.dtype) == ((3, 1, 8, 12, 10), torch.float32)
    assert (label.shape, label.dtype) == ((3, 8, 12, 10), torch.int64)
    assert type(image) is torch.Tensor
    assert type(label) is torch.Tensor


def test_every_case_once_per_epoch(cases: list[CachedCase], make_study: MakeStudy) -> None:
    batches = Batches(cases, make_study((8, 8, 8), training={"batch": 2}), 5)
    assert batches.steps_per_epoch == 3  # ceil(5 / 2)
    drawn = [int(sample.max()) // 100 for t in range(10) for sample in batches.at(t)[0]]
    epochs = [drawn[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_more_cases_than_may_be_open(make_case: MakeCase, make_study: MakeStudy) -> None:
    many = [make_case(f"{n:03}", np.full((1, 8, 8), n), np.ones((8, 8))) for n in range(OPEN_CASES + 5)]
    batches = Batches(many, make_study((8, 8), training={"batch": 1}), 1)
    for _ in range(2):
        drawn = sorted(int(batches.at(t)[0].max()) for t in range(len(many)))
        assert drawn == list(range(len(many)))


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.10), (0.5, 0.40, 0.62), (1.0, 1.0, 1.0)])
def test_share_of_patches_on_a_label(
    make_case: MakeCase, make_study: MakeStudy, share: float, low: float, high: float
) -> None:
    # One labelled voxel in 64²: a uniform 8² patch holds it with probability of at most 64 / 57² = 0.02. With 300
    # samples the standard deviation of a share of 0.5 is 0.03.
    label = np.zeros((64, 64))
    label[30, 40] = 1
    case = make_case("a", np.zeros((1, 64, 64)), label)
    batches = Batches([case], make_study((8, 8), training={"foreground": share, "batch": 100}), 3)
    held = torch.cat([batches.at(t)[1].flatten(1).any(1) for t in range(3)])
    assert low <= held.float().mean() <= high
    if share == 1.0:
        places = torch.cat([batches.at(t)[1] for t in range(3)]).nonzero()[:, 1:]
        assert places.min(0).values.tolist() == [2, 2]  # jittered over the middle half of the patch
        assert places.max(0).values.tolist() == [5, 5]


@pytest.mark.parametrize("present", [(1, 2, 3), (1, 3)])
def test_labels_of_a_case_are_drawn_alike(make_case: MakeCase, make_study: MakeStudy, present: tuple[int, ...]) -> None:
    """Label 1 fills two thirds, 2 a slab, 3 is one voxel: each is the centre of 1/n of the patches, by its binomial."""
    label = np.zeros((60, 60))
    label[:40], label[50:53, :20], label[58, 58] = 1, 2, 3
    label[~np.isin(label, present)] = 0
    case = make_case("a", np.zeros((1, 60, 60)), label)
    training = {"foreground": 1.0, "batch": 600}
    batches = Batches([case], make_study((8, 8), labels=["a", "b", "c"], training=training), 3)
    held = batches.at(0)[1].flatten(1)
    # The three lie too far apart for one patch.
    shares = [float((held == value).any(1).float().mean()) for value in present]
    assert sum(shares) == pytest.approx(1)
    n = len(present)
    assert shares == pytest.approx([1 / n] * n, abs=4 * np.sqrt(1 / n * (1 - 1 / n) / 600))
    assert same(batches.at(1), Batches([case], batches.study, 3).at(1))


def test_uniform_patches_reach_every_voxel(make_case: MakeCase, make_study: MakeStudy) -> None:
    image = np.arange(144).reshape(1, 12, 12)
    batches = Batches([make_case("a", image, np.zeros((12, 12)))], make_study((8, 8), training={"batch": 200}), 3)
    assert torch.unique(batches.at(0)[0]).tolist() == list(range(144))


def test_around_a_small_scan_is_its_smallest_value(make_case: MakeCase, make_study: MakeStudy) -> None:
    image = np.stack([np.full((5, 20), 3.0), np.full((5, 20), -2.0)])
    image[:, 2, 7] = -4.0, -9.0
    batches = Batches([make_case("a", image, np.ones((5, 20)))], make_study((8, 8), channels=["a", "b"]), 1)
    sample, label = batches.at(0)
    inside = torch.zeros(8, 8)
    inside[2:7] = 1  # 8 − 5 = 3 rows are missing: 2 before, 1 behind
    assert torch.equal(label[0], inside.long())
    assert set(sample[0, 0][inside == 0].tolist()) == {-4.0}
    assert set(sample[0, 1][inside == 0].tolist()) == {-9.0}
    assert set(sample[0, 0][inside == 1].tolist()) <= {3.0, -4.0}


@pytest.mark.parametrize("augment", ["none", "default"])
def test_voxels_without_a_label_stay_so(make_case: MakeCase, make_study: MakeStudy, augment: str) -> None:
    """As any label does: the same patches are cut from a map in which 2 stands where the other has IGNORE."""
    label = np.zeros((20, 18))
    label[3:9, 4:10], label[10:, :9] = 1, 2
    study = make_study((24, 8), labels=["a", "b"], training={"augment": augment, "batch": 20})
    image = np.random.default_rng(0).random((1, 20, 18))
    usual, sparse = (
        Batches([make_case(name, image, np.where(label == 2, value, label))], study, 1)
        for name, value in (("usual", 2), ("sparse", IGNORE))
    )
    for step in range(4):
        found = sparse.at(step)[1]
        assert torch.equal(torch.where(found == IGNORE, 2, found), usual.at(step)[1])
        assert set(found.unique().tolist()) == {0, 1, IGNORE}
    # What lies around the scan is background, not unknown.
    assert (sparse.at(0)[1][:, :2] == 0).all() or augment == "default"


def test_prefetch_gives_the_same_batches_in_order(cases: list[CachedCase], make_study: MakeStudy) -> None:
    batches = Batches(cases, make_study((8, 12, 10), training={"augment": "default"}), 7)
    fetched = list(batches.prefetch(4, 9))
    assert len(fetched) == 9
    assert all(same(batch, batches.at(4 + i)) for i, batch in enumerate(fetched))


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("patches")]


def test_prefetch_stops_with_its_consumer(
    cases: list[CachedCase], make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(cases, make_study((8, 8, 8)), 7)
    asked: list[int] = []
    at = batches.at
    monkeypatch.setattr(batches, "at", lambda step: (asked.append(step), at(step))[1])
    stream = batches.prefetch(0, 10_000)
    next(stream)
    assert threads()
    stream.close()  # type: ignore[attr-defined]
    assert not threads()
    assert len(asked) < 12  # bounded: a few ahead, not all


def test_prefetch_raises_at_the_batch_that_failed(cases: list[CachedCase], make_study: MakeStudy) -> None:
    batches = Batches(cases, make_study((8, 8, 8), training={"batch": 1}), 7)
    number = int(batches.at(2)[0].max()) // 100
    batches = Batches(cases, make_study((8, 8, 8), training={"batch": 1}), 7)
    Path(cases[number].folder / "image.npy").unlink()
    stream = batches.prefetch(0, 5)
    next(stream), next(stream)
    with pytest.raises(FileNotFoundError):
        next(stream)
    assert not threads()


def test_no_case_is_said(make_study: MakeStudy) -> None:
    with pytest.raises(DataError, match="no training case"):
        Batches([], make_study((8, 8)), 1)
