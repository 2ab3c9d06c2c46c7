"""Lesions paired one to one, against SimpleITK's components and networkx's matching."""

import math

import networkx
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from client.metrics.lesions import lesion_f1_of
from client.metrics.pair import pairs

Mask = NDArray[np.bool_]


def f1(found: Mask, there: Mask, overlap: float) -> float:
    (pair,) = pairs(found.astype(np.uint8), there.astype(np.uint8), (1.0,) * found.ndim, 1)
    return lesion_f1_of(pair, overlap)


def by_others(found: Mask, there: Mask, overlap: float) -> float:
    def components(mask: Mask) -> list[Mask]:
        image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
        labels = sitk.GetArrayFromImage(image)
        return [labels == i for i in range(1, labels.max() + 1)]

    ours, theirs = components(found), components(there)
    graph = networkx.Graph()
    graph.add_nodes_from(("p", i) for i in range(len(ours)))
    graph.add_nodes_from(("t", j) for j in range(len(theirs)))
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            if (a & b).sum() / (a | b).sum() >= overlap:
                graph.add_edge(("p", i), ("t", j))
    matching = networkx.max_weight_matching(graph, maxcardinality=True)
    return 2 * len(matching) / (len(ours) + len(theirs))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", [0.01, 0.1, 0.35])
@pytest.mark.parametrize("shape", [(18, 15, 12), (40, 35)])
def test_against_simpleitk_and_networkx(seed: int, overlap: float, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    other = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    found, there = (a > np.quantile(a, 0.85) for a in (base, 0.8 * base + 0.6 * other))
    expected = by_others(found, there, overlap)
    assert 0 < expected < 1
    assert f1(found, there, overlap) == pytest.approx(expected)


def test_one_large_find_over_two_lesions_is_one_pair() -> None:
    there = np.zeros((1, 11), bool)
    there[0, 0:5] = there[0, 6:11] = True
    assert f1(np.ones((1, 11), bool), there, 0.1) == pytest.approx(2 / 3)


def test_lesions_that_meet_at_a_corner_are_one() -> None:
    there = np.eye(3, dtype=bool)
    assert f1(there, there, 1.0) == 1.0
    (pair,) = pairs(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), (1, 1), 1)
    assert math.isnan(lesion_f1_of(pair, 0.1))


def test_a_map_full_of_specks_is_no_matter_of_memory() -> None:
    rng = np.random.default_rng(0)
    specks = np.zeros((200, 200), bool)
    specks[::2, ::2] = rng.random((100, 100)) < 0.9
    assert f1(specks, specks, 0.5) == 1.0
