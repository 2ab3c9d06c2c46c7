"""The tensors that cross between a site and the coordinator: names, shapes and bytes.

Both sides derive the same schema from the study, so tensors travel as one flat array per dtype, without names, and
every byte count is known before anything is decoded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import StudyError
from common.freezing import frozen
from common.nets import build_net
from common.nets.head import head_of
from common.study import Study
from common.traits import traits_of

Flat = dict[str, NDArray[Any]]
Kind = Literal["parameter", "frozen", "buffer", "control"]

CONTROL = "control/"  # begins the names of entries that are no tensors of the net
_DTYPES = {torch.float32: "float32", torch.int64: "int64"}


@dataclass(frozen=True)
class Entry:
    """One tensor: `offset` counts elements within the flat array of its dtype.

    Attributes:
        kind: A `parameter` is learnt; a `frozen` one is not, and crosses downwards only; a `buffer` is counted or
            averaged by the net itself, such as batch normalisation's statistics; `control` is a strategy's own, and of
            a parameter's shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    kind: Kind = "parameter"

    @property
    def place(self) -> slice:
        """Where the tensor's elements lie in the flat array."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Schema:
    """The tensors that cross, in the order of the net's `state_dict`; then what the strategy adds."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, study: Study) -> "Schema":
        """The study's schema. The net is built without memory for its weights.

        What stays at the sites (`left_at_sites`) is not part of it.
        """
        with torch.device("meta"):
            net = build_net(study)
        local, buffers = left_at_sites(net, study), {name for name, _ in net.named_buffers()}
        still = frozen(study.training, [name for name, _ in net.named_parameters()])
        filled: dict[str, int] = {}
        entries = []
        for name, tensor in net.state_dict().items():
            if name in local:
                continue
            if tensor.dtype not in _DTYPES:
                raise StudyError(
                    f"net {study.net.name}: tensor {name} is {tensor.dtype}; only float32 and int64 can cross"
                )
            dtype, kind = (
                _DTYPES[tensor.dtype],
                "buffer" if name in buffers else "frozen" if name in still else "parameter",
            )
            start = filled.get(dtype, 0)
            entries.append(Entry(name, dtype, tuple(tensor.shape), start, tensor.numel(), kind))  # type: ignore[arg-type]
            filled[dtype] = start + tensor.numel()
        if traits_of(study).control:
            for e in [e for e in entries if e.kind == "parameter"]:
                entries.append(replace(e, name=CONTROL + e.name, offset=filled[e.dtype], kind="control"))
                filled[e.dtype] += e.size
        return cls(tuple(entries))

    @property
    def sizes(self) -> dict[str, int]:
        """Elements per dtype."""
        sizes: dict[str, int] = {}
        for entry in self.entries:
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.size
        return sizes

    @property
    def nbytes(self) -> int:
        """Bytes of one update on the wire."""
        return sum(n * np.dtype(dtype).itemsize for dtype, n in self.sizes.items())

    @property
    def weights(self) -> "Schema":
        """The net's own tensors alone. What a strategy adds lies behind them, so every offset is the same."""
        return Schema(tuple(e for e in self.entries if e.kind != "control"))

    def places(self, kind: Kind, dtype: str = "float32", longest: int | None = None) -> Iterator[slice]:
        """Where the entries of `kind` lie in the flat array of `dtype`; neighbours are one slice.

        Args:
            kind: Of the entries.
            dtype: Of the array.
            longest: Elements per slice at most; none: no limit.
        """
        runs: list[slice] = []
        for e in self.entries:
            if e.kind != kind or e.dtype != dtype or not e.size:
                continue
            if runs and runs[-1].stop == e.offset:
                runs[-1] = slice(runs[-1].start, e.offset + e.size)
            else:
                runs.append(e.place)
        for run in runs:
            for start in range(run.start, run.stop, longest or run.stop):
                yield slice(start, min(run.stop, start + (longest or run.stop)))

    def pack(self, state: Mapping[str, torch.Tensor]) -> Flat:
        """The tensors of a `state_dict`, copied into one flat array per dtype.

        Control entries that `state` does not have are zero, as at the start of a run.
        """
        flat: Flat = {dtype: np.zeros(n, dtype) for dtype, n in self.sizes.items()}
        for e in self.entries:
            if e.kind != "control" or e.name in state:
                flat[e.dtype][e.place] = state[e.name].detach().cpu().numpy().reshape(-1)
        return flat

    def tensors(self, flat: Mapping[str, NDArray[Any]], kind: Kind) -> dict[str, torch.Tensor]:
        """Copies of the entries of `kind`, by name."""
        return {
            e.name: torch.from_numpy(np.array(flat[e.dtype][e.place], dtype=e.dtype)).reshape(e.shape)
            for e in self.entries
            if e.kind == kind
        }

    def load(self, flat: Mapping[str, NDArray[Any]], net: nn.Module) -> None:
        """Copy the flat arrays into `net`, in place; tensors outside the schema stay as they are."""
        state = net.state_dict()
        with torch.no_grad():
            for e in self.weights.entries:
                values = np.array(flat[e.dtype][e.place]).reshape(e.shape)
                state[e.name].copy_(torch.from_numpy(values))

    def statistics(self) -> Iterator[tuple[Entry, Entry]]:
        """Pairs of (running mean, running variance)."""
        by_name = {e.name: e for e in self.entries}
        for e in self.entries:
            if e.name.endswith("running_mean"):
                yield e, by_name[e.name.removesuffix("running_mean") + "running_var"]

    def fault(self, flat: Flat) -> str | None:
        """Why these values are no net's, though they are finite; none if they may be: no variance is below 0."""
        low = next((v.name for _, v in self.statistics() if v.size and flat[v.dtype][v.place].min() < 0), None)
        return None if low is None else f"{low} is below 0, which no variance is"


def running_statistics(net: nn.Module) -> frozenset[str]:
    """Names of the buffers that batch normalisation keeps between batches."""
    names = [name for name, _ in net.named_buffers()]
    return frozenset(n for n in names if n.endswith(("running_mean", "running_var", "num_batches_tracked")))


def left_at_sites(net: nn.Module, study: Study) -> frozenset[str]:
    """Names of the net's tensors that each site keeps for itself, as `rounds.buffers` and the strategy want it."""
    local = traits_of(study).local
    statistics = local in ("statistics", "norm") or study.rounds.buffers == "local"
    names = running_statistics(net) if statistics else frozenset()
    if local == "head":
        names |= set(head_of(study))
    if local == "norm":
        layers = (name for name, module in net.named_modules() if isinstance(module, _NORMS))
        prefixes = tuple(f"{name}." for name in layers)
        names |= {name for name in net.state_dict() if name.startswith(prefixes)}
    return names


_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
