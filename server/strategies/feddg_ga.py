"""FedDG-GA: sites for whom the mean model is worse than their own get a larger say."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import StrategyCard, described
from common.wire import Flat
from server.aggregation import weighted_mean
from server.strategies.base import Fold, Strategy


@described(
    StrategyCard(
        title="FedDG-GA (generalisation adjustment)",
        source="Zhang et al. 2023, CVPR, Federated Domain Generalization with Generalization Adjustment",
        suited="sites with unlike scanners, and a model that is to work at others; fairer than a mean by cases",
        equation="G_k = F_k(w) − F_k(w_k);  a_k ← a_k + d_r/K · (G_k − Ḡ) / max|G − Ḡ|, normalised;  w ← Σ a_k w_k",
        server="a weight and a loss per site",
        sent="two losses per site and round",
    )
)
class FedDGGA(Strategy):
    """w ← Σ a_k w_k, and a_k grows where the gap G_k = F_k(w) − F_k(w_k) is larger than elsewhere.

    F_k(w_k) is the loss of site k's net after its training, F_k(w) that of the global weights made of it, both on the
    same training patches of the site; so a gap is known when the next update comes. a_k begins at the site's weight
    (`rounds.weights`) and moves by at most d_r / K with d_r = (1 − (r − 1)/R) · step over R rounds. A site that was not
    there in the round before keeps its a_k; one that is new begins at the mean of the others. Where only sites answer
    whose a_k have come to 0, they begin again with equal ones.

    Args:
        step: How far weights move in the first round, as a share of 1/K.
    """

    def __init__(self, *, step: Annotated[float, Field(ge=0, le=1)] = 0.2) -> None:
        self._step = step

    def fold(self, fold: Fold) -> Flat:
        """The next global weights; keeps `shares` (a_k) and `trained` (F_k(w_k)) by site."""
        shares = fold.memory.setdefault("shares", {})
        trained = fold.memory.setdefault("trained", {})
        sites = [reply.site for reply in fold.replies]
        start = np.asarray(fold.weights, np.float64) / np.sum(fold.weights, dtype=np.float64)
        if shares:
            usual = float(np.mean([share[0] for share in shares.values()]))
            start = np.array([shares[s][0] if s in shares else usual for s in sites])
        if start.sum() == 0:  # all that answered had lost their say
            start = np.ones(len(sites))
        gaps = np.array([r.metrics["loss-received"] - _last(trained, r.site) for r in fold.replies])
        step = self._step * (1 - (fold.round - 1) / fold.study.rounds.number) / len(sites)
        now = adjusted(start / start.sum(), gaps, step)
        # What those who are away had is not shared out: they find it when they come back.
        shares |= {site: np.array([share * start.sum()]) for site, share in zip(sites, now, strict=True)}
        trained.clear()  # the gap of who comes back later would be one between losses of different rounds
        trained |= {reply.site: np.array([reply.metrics["loss-trained"]]) for reply in fold.replies}
        return weighted_mean(fold.schema, fold.replies, [float(share) for share in now])


def adjusted(shares: NDArray[np.float64], gaps: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """`shares`, whose sum is 1, moved by `step` towards the sites with the larger `gaps`; NaN is a gap not known."""
    known = np.isfinite(gaps)
    if known.sum() < 2:
        return shares
    away = np.where(known, gaps - gaps[known].mean(), 0)
    most = np.abs(away).max()
    if most == 0:
        return shares
    moved = np.clip(shares + step * away / most, 0, 1)
    normalised: NDArray[np.float64] = moved / moved.sum()
    return normalised


def _last(trained: Mapping[str, NDArray[np.float64]], site: str) -> float:
    return float(trained[site][0]) if site in trained else float("nan")
