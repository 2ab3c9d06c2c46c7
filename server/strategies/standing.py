"""The weights of all sites that ever replied: what strategies need whose sites keep a part of a common sum."""

import numpy as np

from server.strategies.base import Fold


def standing(fold: Fold) -> tuple[float, float, float]:
    """Sum of the weights of the sites that replied before this round, of those up to it, and of those in it.

    Keeps each site's last weight as `weights` in the fold's memory.
    """
    known = fold.memory.setdefault("weights", {})
    before = _sum(known)
    for reply, weight in zip(fold.replies, fold.weights, strict=True):
        known[reply.site] = np.array([weight], np.float64)
    return before, _sum(known), float(np.sum(fold.weights, dtype=np.float64))


def _sum(known: dict[str, np.ndarray]) -> float:
    return float(sum(known[site][0] for site in sorted(known)))
