"""A federation whose sites have quadratic losses and no pictures: the client's training, the spool, and the fold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.halves import corrections
from client.training import Span, make_optimizer, train
from common.names import STRATEGIES
from common.study import Study
from common.traits import traits_of
from common.wire import Entry, Flat, Schema
from server.spool import Spool
from server.strategies.base import Fold


class Point(nn.Module):
    """A net that is a point, whatever it sees."""

    def __init__(self, w: Sequence[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, image: Tensor) -> Tensor:
        return self.w


class Bowl(nn.Module):
    """F(w) = Σ a/2 (w − b)²."""

    def __init__(self, a: Sequence[float], b: Sequence[float]) -> None:
        super().__init__()
        self.a, self.b = torch.tensor(a), torch.tensor(b)

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        return (self.a / 2 * (output - self.b) ** 2).sum()


class Federation:
    """Sites by name; `round` makes one round, of which replies may be lost after the work was done.

    Args:
        folder: Gets the spool.
        bowls: The sites' losses.
        weights: Of the sites.
        strategy: Name and options.
        training: Settings other than plain SGD with a constant rate.
    """

    def __init__(
        self, folder: Path, bowls: Mapping[str, Bowl], weights: Mapping[str, float], strategy: dict[str, Any],
        **training: Any,
    ) -> None:  # fmt: skip
        plain = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "schedule": "constant", "clip": None}
        self.study = Study.model_validate(
            {
                "name": "s", "data": {"labels": ["organ"], "dimensions": 2}, "plan": {"patch": [16, 16]},
                "training": {**plain, "steps": 2, "rate": 0.1, **training}, "strategy": strategy,
            }
        )  # fmt: skip
        n = len(next(iter(bowls.values())).b)
        entries = [Entry("w", "float32", (n,), 0, n)]
        if traits_of(self.study).control:
            entries.append(Entry("control/w", "float32", (n,), n, n, "control"))
        self.schema = Schema(tuple(entries))
        self.flat: Flat = {"float32": np.zeros(sum(e.size for e in entries), np.float32)}
        self.kept: dict[str, dict[str, Tensor]] = {name: {} for name in bowls}
        self.bowls, self.weights, self.number = bowls, weights, 0
        self.memory: dict[str, Flat] = {}
        self._n, self._folder = n, folder
        choice = self.study.strategy
        self.strategy = STRATEGIES.get(choice.name)(**choice.options)

    @property
    def w(self) -> np.ndarray:
        return self.flat["float32"][: self._n]

    def round(self, *lost: str) -> None:
        """All sites work; those in `lost` are not heard."""
        self.number += 1
        spool, steps = Spool(self._folder, self.schema), self.study.training.steps or 0
        heard = [name for name in self.bowls if name not in lost]
        for name, bowl in self.bowls.items():
            net = Point(self.w.tolist())
            terms, kept = self.strategy.terms(self.number), self.kept[name]
            extra = corrections(self.study, terms, self.schema, self.flat, kept, bowl, lambda step: step)
            batches = [(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))] * steps
            span = Span((self.number - 1) * steps, steps, 100)
            train(net, bowl, make_optimizer(net, self.study.training), batches, self.study.training, span, extra)
            sent = {f"control/{k}": v for k, v in extra.sent().items()}
            spool.add(self.number, name, self.schema.pack(net.state_dict() | sent), {"steps": steps})
            if name in heard:
                self.kept[name] = extra.keep()
        replies = spool.replies(self.number, tuple(heard))
        weights = [self.weights[name] for name in heard]
        self.flat = self.strategy.fold(
            Fold(self.study, self.schema, replies, weights, self.flat, self.number, self.memory)
        )
