"""What every coded update is: a change of the parameters, in fewer bytes than its float32 values have.

Codecs are plain NumPy, draw no random number, and decode to the same bits on every machine, so that a site knows to the
last bit what the coordinator will make of its reply.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]


class Codec(ABC):
    """Between a change of n values and its coded form: one flat array per dtype, whose sizes n alone decides.

    Attributes:
        feedback: Whether what a reply could not say is kept at the site and added to the next change.
    """

    feedback: bool = False

    @abstractmethod
    def sizes(self, n: int) -> dict[str, int]:
        """Elements of each array of a coded change of `n` values, by dtype."""

    @abstractmethod
    def encode(self, change: Floats) -> dict[str, NDArray[Any]]:
        """`change`, of finite values, as arrays of `sizes`."""

    @abstractmethod
    def fault(self, coded: Arrays, n: int) -> str | None:
        """Why arrays of `sizes`, floats among them finite, are nothing that `encode` gives; none if they may be."""

    @abstractmethod
    def decode(self, coded: Arrays, n: int) -> Floats:
        """The change of `n` values that arrays without fault stand for."""
