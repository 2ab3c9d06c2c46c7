"""The change in 16 bits per parameter."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.cards import UpdateCard, described
from common.updates.base import Arrays, Codec, Floats

_MOST = {"float16": np.float32(65504), "bfloat16": np.uint32(0x7F7F0000).view(np.float32)}
_INFINITE = np.uint16(0x7F80)  # the bits of bfloat16's exponent, all set: infinite, or no number


@described(
    UpdateCard(
        title="Half precision",
        source="IEEE 754-2019 binary16; Kalamkar et al. 2019, arXiv 1905.12322 (bfloat16)",
        suited="Half the bytes at once, nothing to keep: float16 is exact to 1/2048 of a change, below 6e-5 to 3e-8.",
        equation="d_i rounded to the nearest number of 16 bits, ties to even",
        size="2",
    )
)
class Half(Codec):
    """Each value of the change rounded to 16 bits; beyond the largest such number it is that.

    Args:
        dtype: `float16` has 11 significant bits, and steps of 6e-8 where changes are below 6e-5; `bfloat16` has 8 at
            every size.
    """

    def __init__(self, *, dtype: Literal["float16", "bfloat16"] = "float16") -> None:
        self.dtype = dtype
        # NumPy has no bfloat16: it crosses as the upper halves of float32's bits.
        self._form = "float16" if dtype == "float16" else "uint16"

    def sizes(self, n: int) -> dict[str, int]:
        """One value each."""
        return {self._form: n}

    def encode(self, change: Floats) -> dict[str, NDArray[Any]]:
        """Rounded to nearest, ties to even."""
        within = np.clip(change, -_MOST[self.dtype], _MOST[self.dtype])
        if self.dtype == "float16":
            return {"float16": within.astype(np.float16)}
        bits = within.view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return {"uint16": (bits >> np.uint32(16)).astype(np.uint16)}

    def fault(self, coded: Arrays, n: int) -> str | None:
        """As integers, bits may stand for what is no finite number."""
        if self.dtype == "bfloat16" and bool(((coded["uint16"] & _INFINITE) == _INFINITE).any()):
            return "values are NaN or infinite"
        return None

    def decode(self, coded: Arrays, n: int) -> Floats:
        """The same values in 32 bits."""
        if self.dtype == "float16":
            return coded["float16"].astype(np.float32)
        return (coded["uint16"].astype(np.uint32) << np.uint32(16)).view(np.float32)
