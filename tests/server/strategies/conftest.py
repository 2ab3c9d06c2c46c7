"""Replies of sites in a real spool, and the fold over them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.names import STRATEGIES
from common.study import Study
from common.wire import Entry, Flat, Schema, become
from server.spool import Spool
from server.strategies.base import Fold, Strategy


def strategy(name: str, **options: Any) -> Strategy:
    """As a study's strategy is made: options checked, defaults filled in."""
    made: Strategy = STRATEGIES.get(name)(**STRATEGIES.check(name, options))
    return made


def study_of(**training: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": {"labels": ["organ"], "dimensions": 2},
            "plan": {"patch": [16, 16]},
            "net": {"name": "unet", "width": 4, "levels": 2},
            "training": {"steps": 1, **training},
            "rounds": {"number": 10},
        }
    )


def parameters(n: int) -> Schema:
    """One tensor of `n` numbers."""
    return Schema((Entry("w", "float32", (n,), 0, n),))


class Sites:
    """Folds replies given as arrays, round after round, with one memory."""

    def __init__(self, folder: Path, schema: Schema, study: Study) -> None:
        self.schema, self.study = schema, study
        self.memory: dict[str, Flat] = {}
        self.round = 0
        self._folder = folder

    def fold(
        self,
        by: Strategy,
        base: Any,
        replies: Sequence[Any],
        weights: Sequence[float] | None = None,
        metrics: Sequence[dict[str, float]] | None = None,
    ) -> np.ndarray:
        """The next weights; arrays are the flat float32 values."""
        self.round += 1
        spool = Spool(self._folder, self.schema)
        names = tuple(f"site-{i}" for i in range(len(replies)))
        for i, (name, values) in enumerate(zip(names, replies, strict=True)):
            flat = values if isinstance(values, dict) else {"float32": np.asarray(values, "float32")}
            spool.add(self.round, name, flat, metrics[i] if metrics else {"steps": 1.0})
        found = spool.replies(self.round, names)
        assert len(found) == len(replies)
        start = base if isinstance(base, dict) else {"float32": np.asarray(base, "float32")}
        before = {k: v.tobytes() for k, v in start.items()}
        result = by.fold(
            Fold(self.study, self.schema, found, weights or [1.0] * len(found), start, self.round, self.memory)
        )
        assert {k: v.tobytes() for k, v in start.items()} == before, "base was changed"
        assert {k: (v.dtype.name, v.size) for k, v in result.items()} == {
            k: (k, n) for k, n in self.schema.sizes.items()
        }
        return result["float32"]


@pytest.fixture(autouse=True)
def _node() -> None:
    become(run_id=1, node_id=1)


@pytest.fixture
def sites(tmp_path: Path) -> Callable[..., Sites]:
    made = iter(range(100))

    def make(n: int | Schema, study: Study | None = None) -> Sites:
        schema = parameters(n) if isinstance(n, int) else n
        return Sites(tmp_path / f"spool-{next(made)}", schema, study or study_of())

    return make


@pytest.fixture(name="strategy")
def _strategy() -> Callable[..., Strategy]:
    return strategy


@pytest.fixture(name="study_of")
def _study_of() -> Callable[..., Study]:
    return study_of
