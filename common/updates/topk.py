"""The largest values of the change alone, each with its place."""

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import UpdateCard, described
from common.updates.base import Arrays, Codec, Floats

_MOST = np.float32(65504)  # float16's largest number


@described(
    UpdateCard(
        title="Largest changes",
        source="Aji & Heafield 2017, arXiv 1704.05021; Stich et al. 2018, arXiv 1809.07599 (error feedback)",
        suited="Very slow lines and many rounds: what is small crosses later, so learning is slower at first.",
        equation="the k = ⌈share · n⌉ of the d_i with the largest |d_i|, in float16, and their places i",
        size="6 · share",
        site="what its replies have not said yet, one number per parameter",
    )
)
class TopK(Codec):
    """A fixed number of values; of equal ones the first. All others are 0 for the coordinator.

    Args:
        share: Of the parameters that cross in a round.
        feedback: The rest is kept at the site and added to the next round's change; without it small changes never
            cross, and training ends away from the optimum.
    """

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=0.5)] = 0.1, feedback: bool = True) -> None:
        self.share = share
        self.feedback = feedback

    def sizes(self, n: int) -> dict[str, int]:
        """A place and a value for each that crosses."""
        k = min(n, math.ceil(self.share * n))
        return {"uint32": k, "float16": k}

    def encode(self, change: Floats) -> dict[str, NDArray[Any]]:
        """The places in rising order, so that an update has one form only."""
        k, large = self.sizes(change.size)["uint32"], np.abs(change)
        if not k:
            return {"uint32": np.empty(0, np.uint32), "float16": np.empty(0, np.float16)}
        least = np.partition(large, change.size - k)[change.size - k]
        chosen = large > least
        # A partial sort leaves open which of equal values it takes, and processors differ in it.
        chosen[np.flatnonzero(large == least)[: k - int(chosen.sum())]] = True
        places = np.flatnonzero(chosen)
        values = np.clip(change[places], -_MOST, _MOST).astype(np.float16)
        return {"uint32": places.astype(np.uint32), "float16": values}

    def fault(self, coded: Arrays, n: int) -> str | None:
        """Each place is one of the change's, and stands once."""
        places = coded["uint32"]
        if places.size and int(places[-1]) >= n:
            return "a place lies beyond the last parameter"
        return None if bool((places[1:] > places[:-1]).all()) else "the places are not in rising order, each once"

    def decode(self, coded: Arrays, n: int) -> Floats:
        """0 but at those places."""
        change = np.zeros(n, np.float32)
        change[coded["uint32"]] = coded["float16"]
        return change
