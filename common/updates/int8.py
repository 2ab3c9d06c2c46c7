"""The change in 8 bits per parameter, with one scale per block."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.cards import UpdateCard, described
from common.updates.base import Arrays, Codec, Floats

_LEVELS = 127  # on either side of 0
_AT_ONCE = 1 << 18  # values that are coded together: their float64 copies stay in the processor's cache


@described(
    UpdateCard(
        title="8-bit integers",
        source="Dettmers et al. 2022, arXiv 2110.02861 (blocks); Seide et al. 2014, doi:10.21437/Interspeech.2014-274,"
        " and Karimireddy et al. 2019, arXiv 1901.09847 (error feedback)",
        suited="Slow lines: a quarter of the bytes, and hardly anything lost.",
        equation="s = max |d_i| / 127 over a block, q_i = round(d_i / s); the coordinator reads s q_i",
        size="1 + 4/block",
        site="what its replies could not say yet, one number per parameter",
    )
)
class Int8(Codec):
    """Whole numbers from −127 to 127 times the block's own scale, so that no value is off by more than half a scale.

    Args:
        block: Parameters that share a scale, in the schema's order. A large value hides the small ones of its block.
        feedback: What was rounded away is kept at the site and added to the next round's change.
    """

    def __init__(self, *, block: Annotated[int, Field(ge=8, le=65536)] = 256, feedback: bool = True) -> None:
        self.block = block
        self.feedback = feedback

    def sizes(self, n: int) -> dict[str, int]:
        """A number for each value, a scale for each block."""
        return {"int8": n, "float32": math.ceil(n / self.block)}

    def encode(self, change: Floats) -> dict[str, NDArray[Any]]:
        """Rounded to nearest, ties to even; a block of nothing but subnormal steps crosses as 0."""
        coded = {dtype: np.empty(size, dtype) for dtype, size in self.sizes(change.size).items()}
        for values, blocks in self._parts(change.size):
            padded = np.zeros((blocks.stop - blocks.start) * self.block)
            padded[: values.stop - values.start] = change[values]
            rows = padded.reshape(-1, self.block)
            scales = (np.abs(rows).max(axis=1) / _LEVELS).astype(np.float32)
            scales[scales < np.finfo(np.float32).tiny] = 0
            steps = np.where(scales > 0, scales.astype(np.float64), np.inf)
            numbers = np.clip(np.rint(rows / steps[:, None]), -_LEVELS, _LEVELS)
            coded["int8"][values] = numbers.reshape(-1)[: values.stop - values.start]
            coded["float32"][blocks] = scales
        return coded

    def fault(self, coded: Arrays, n: int) -> str | None:
        """−128 and negative scales are never made."""
        if n and coded["int8"].min() < -_LEVELS:
            return f"a number is below -{_LEVELS}"
        return "a scale is negative" if n and coded["float32"].min() < 0 else None

    def decode(self, coded: Arrays, n: int) -> Floats:
        """Number times scale."""
        change = coded["int8"].astype(np.float32)
        for values, blocks in self._parts(n):
            with np.errstate(over="ignore"):  # of a scale that nobody here has made: whoever adds it looks
                change[values] *= np.repeat(coded["float32"][blocks], self.block)[: values.stop - values.start]
        return change

    def _parts(self, n: int) -> Iterator[tuple[slice, slice]]:
        """The values part by part, with their blocks."""
        together = max(1, _AT_ONCE // self.block)
        for first in range(0, math.ceil(n / self.block), together):
            last = min(math.ceil(n / self.block), first + together)
            yield slice(first * self.block, min(n, last * self.block)), slice(first, last)
