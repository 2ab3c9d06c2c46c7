"""What a site's reply to a training task holds: arrays, bytes, and how they become weights again.

Both ends derive it from the study, as they do the schema. The parameters cross as the study's `update` says: as they
are, or as their coded change from the weights that the round began with; frozen ones do not. What is no parameter
(running statistics, counters, a strategy's control variate) always crosses as it is: it is small, or not a change that
errors could be fed back into. Downwards everything crosses as it is.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from common import wire
from common.errors import WireError
from common.names import UPDATES
from common.schema import Flat, Kind, Schema
from common.study import Study
from common.updates.base import Codec, Floats

_CODED = "float32"  # the dtype of everything that is coded


@dataclass(frozen=True)
class Uplink:
    """The arrays of a reply, one flat one per dtype.

    Of float32 those values come first that cross as they are (parameters, buffers, then control), then what the codec
    adds.

    Attributes:
        schema: Of the study: what the reply stands for.
        codec: How the change of the parameters crosses; none: the parameters themselves do.
    """

    schema: Schema
    codec: Codec | None = None

    @classmethod
    def of(cls, study: Study, schema: Schema | None = None) -> "Uplink":
        """The study's; `schema` where it is known already."""
        made = UPDATES.get(study.update.name)(**study.update.options)
        return cls(schema or Schema.of(study), made if isinstance(made, Codec) else None)

    @property
    def sizes(self) -> dict[str, int]:
        """Elements per dtype."""
        sizes = {**self.schema.sizes, _CODED: self._plain}
        for dtype, n in self.codec.sizes(self.coded).items() if self.codec else ():
            sizes[dtype] = sizes.get(dtype, 0) + n
        return {dtype: n for dtype, n in sizes.items() if n}

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(n * np.dtype(dtype).itemsize for dtype, n in self.sizes.items())

    @cached_property
    def coded(self) -> int:
        """How many values are coded."""
        return sum(p.stop - p.start for p in self._coded_places)

    @property
    def tensors(self) -> int:
        """How many of the schema's tensors a reply tells of: all but the frozen ones."""
        return sum(e.kind != "frozen" for e in self.schema.entries)

    @property
    def feedback(self) -> bool:
        """Whether the site keeps what its replies could not say."""
        return self.codec is not None and self.codec.feedback

    def encode(self, flat: Flat, base: Flat, left: Floats | None = None) -> tuple[Flat, Floats | None]:
        """A site's weights as they leave.

        Args:
            flat: The weights after training, in arrays of the schema.
            base: Those that the round began with.
            left: What earlier replies could not say, (coded,); none: nothing.

        Returns:
            The arrays of the reply; and, with `feedback`, what it leaves unsaid: the change and `left`, less what the
            coordinator will read (Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847).

        Raises:
            WireError: A value of the change is NaN or infinite.
        """
        if self.whole:
            return flat, None
        plain = self._gather(flat[_CODED], self._plain_places, self._plain)
        if self.codec is None:
            return {**flat, _CODED: plain}, None
        change = self._gather(flat[_CODED], self._coded_places, self.coded)
        with np.errstate(over="ignore", invalid="ignore"):
            change -= self._gather(base[_CODED], self._coded_places, self.coded)
            if left is not None:
                change += left
        if not wire.finite(change):
            raise WireError("the change of the weights holds NaN or infinite values")
        coded = self.codec.encode(change)
        arrays = {d: values for d, values in flat.items() if d != _CODED}
        arrays |= {d: values for d, values in coded.items() if d != _CODED}
        arrays[_CODED] = np.concatenate([plain, coded[_CODED]]) if _CODED in coded else plain
        if self.feedback:
            change -= self.codec.decode(coded, self.coded)
        return {d: v for d, v in arrays.items() if v.size}, change if self.feedback else None

    def read(self, message: Message) -> Flat:
        """The arrays of a reply, as read-only views of its bytes.

        Raises:
            WireError: They are not of these sizes, not finite, or nothing that the codec makes. Sizes are looked at
                before any value is.
        """
        arrays = wire.fitting_arrays(self, message)
        for dtype, values in arrays.items():
            if not wire.finite(values):
                raise WireError(f"array {dtype} holds NaN or infinite values")
        if self.codec is not None and (fault := self.codec.fault(self._own(arrays), self.coded)) is not None:
            raise WireError(f"the coded change: {fault}")
        return arrays

    def decode(self, arrays: Flat, base: Flat) -> Flat:
        """The weights that arrays stand for, in arrays of the schema.

        Args:
            arrays: As `read` or `encode` gave them.
            base: The weights that the round began with.

        Raises:
            WireError: A weight would be infinite.
        """
        if self.whole:
            return arrays
        values, at, plain = np.array(base[_CODED], np.float32), 0, 0
        change = values[:0] if self.codec is None else self.codec.decode(self._own(arrays), self.coded)
        for place in self._coded_places:
            n = place.stop - place.start
            with np.errstate(over="ignore", invalid="ignore"):
                values[place] += change[at : at + n]
            at += n
        for place in self._plain_places:
            n = place.stop - place.start
            values[place] = arrays[_CODED][plain : plain + n]
            plain += n
        if not wire.finite(values):
            raise WireError("with the coded change, weights would be NaN or infinite")
        return {d: values if d == _CODED else arrays[d] for d in self.schema.sizes}

    def _own(self, arrays: Flat) -> Flat:
        """The codec's own part."""
        assert self.codec is not None  # noqa: S101 -- for the type checker
        own = {d: arrays.get(d, np.empty(0, d)) for d in self.codec.sizes(self.coded)}
        return own | ({_CODED: own[_CODED][self._plain :]} if _CODED in own else {})

    @property
    def whole(self) -> bool:
        """Whether the flat arrays cross as they are: nothing is coded, nothing frozen."""
        return self.codec is None and not any(self.schema.places("frozen"))

    @cached_property
    def _coded_places(self) -> tuple[slice, ...]:
        return () if self.codec is None else tuple(self.schema.places("parameter"))

    @cached_property
    def _plain_places(self) -> tuple[slice, ...]:
        kinds: tuple[Kind, ...] = ("buffer", "control") if self.codec else ("parameter", "buffer", "control")
        return tuple(place for kind in kinds for place in self.schema.places(kind))

    @cached_property
    def _plain(self) -> int:
        return sum(p.stop - p.start for p in self._plain_places)

    @staticmethod
    def _gather(values: NDArray[Any], places: tuple[slice, ...], n: int) -> Floats:
        """A copy of the values at `places`, `n` in all."""
        return np.concatenate([values[p] for p in places], dtype=np.float32) if n else np.empty(0, np.float32)
