"""Multi-Krum: the mean of the sites whose weights lie closest to those of others."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import StrategyCard, described
from common.schema import Kind
from common.wire import Flat
from server.aggregation import weighted_mean
from server.robust import products, squared_distances
from server.strategies.base import Fold, Strategy

Faulty = Annotated[int, Field(ge=0, le=1000)]


def scores(distances: NDArray[np.float64], faulty: int) -> NDArray[np.float64]:
    """Krum's score of each of K sites: the sum of the K − f − 2 smallest squared distances to others, at least one.

    Args:
        distances: Squared, of shape (K, K).
        faulty: f.
    """
    sites = len(distances)
    if sites < 2:
        return np.zeros(sites)
    others = np.sort(distances + np.diag(np.full(sites, np.inf)), axis=1)
    closest: NDArray[np.float64] = others[:, : max(1, sites - faulty - 2)].sum(axis=1)
    return closest


def distances_of(fold: Fold) -> NDArray[np.float64]:
    """Squared distances between the sites, of shape (K, K): of parameters, and likewise of running statistics.

    Each kind counts in units of its median, because they are of other sizes; a kind that all sites agree on is left
    out.
    """
    total = np.zeros((len(fold.replies), len(fold.replies)))
    kinds: tuple[Kind, ...] = ("parameter", "buffer")
    for kind in kinds:
        found = squared_distances(products(fold, kind))
        apart = found[np.triu_indices(len(found), 1)]
        unit = float(np.median(apart[apart > 0])) if (apart > 0).any() else 0.0
        if unit:
            total += found / unit
    return total


def mean_of_best(fold: Fold, faulty: int, keep: int) -> Flat:
    """The weighted mean of the `keep` sites with the lowest scores; of equal ones the first in the roster."""
    order = np.argsort(scores(distances_of(fold), faulty), kind="stable")
    chosen: Sequence[int] = sorted(int(i) for i in order[:keep])
    return weighted_mean(fold.schema, [fold.replies[i] for i in chosen], [fold.weights[i] for i in chosen])


@described(
    StrategyCard(
        title="Multi-Krum",
        source="Blanchard et al. 2017, NeurIPS, arXiv 1703.02757",
        suited="a few sites may be wrong in any way; the others are averaged as usual",
        equation="score_k = Σ of the K − f − 2 smallest ‖w_k − w_j‖²;  w ← weighted mean of the m lowest",
    )
)
class MultiKrum(Strategy):
    """The weighted mean of the m sites with the lowest scores.

    A site's score is the sum of its K − f − 2 smallest ‖w_k − w_j‖². The guarantee wants K ≥ 2f + 3 sites; with fewer,
    at least one neighbour is still counted. Running statistics are those of the chosen sites, and their distances count
    too (in units of their median, as those of parameters do), or a site could lie in them alone.

    Args:
        faulty: f, how many sites may be wrong.
        keep: m; none: all but f.
    """

    def __init__(self, *, faulty: Faulty = 1, keep: Annotated[int, Field(ge=1, le=1000)] | None = None) -> None:
        self._faulty, self._keep = faulty, keep

    def fold(self, fold: Fold) -> Flat:
        """The next global weights."""
        return mean_of_best(fold, self._faulty, self._keep or max(1, len(fold.replies) - self._faulty))
