"""Which of many structures of one label were found."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from client.metrics.pair import Mask, Pair


def lesion_f1_of(pair: Pair, overlap: float) -> float:
    """F1 over connected components, paired one to one where their IoU is at least `overlap`; NaN without any.

    As many pairs are made as can be (Hopcroft & Karp 1973, doi:10.1137/0202019).
    """
    (found, n), (there, m) = _components(pair.found), _components(pair.there)
    if not n + m:
        return math.nan
    if not n or not m:
        return 0.0
    # The voxels that lesion i of the prediction and lesion j of the truth share, for those that share any.
    both = pair.found & pair.there
    met, shared = np.unique((found[both] - 1).astype(np.int64) * m + there[both] - 1, return_counts=True)
    i, j = np.divmod(met, m)
    sizes = [np.bincount(parts.ravel(), minlength=k + 1)[1:] for parts, k in ((found, n), (there, m))]
    near = shared >= overlap * (sizes[0][i] + sizes[1][j] - shared)
    graph = sparse.csr_array((np.ones(near.sum(), bool), (i[near], j[near])), shape=(n, m))
    match = sparse.csgraph.maximum_bipartite_matching(graph)
    return 2 * int(np.count_nonzero(match >= 0)) / (n + m)


def _components(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """The mask with its components numbered from 1, and how many there are."""
    parts, n = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return parts, int(n)
