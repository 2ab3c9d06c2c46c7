"""What a fold needs at its peak: a few models, however many sites."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from common.names import STRATEGIES
from common.wire import Entry, Schema
from server import aggregation, robust
from server.spool import Spool
from server.strategies.base import Fold

N = 1_000_000
SCHEMA = Schema(
    (Entry("w", "float32", (N - 1000,), 0, N - 1000), Entry("v", "float32", (1000,), N - 1000, 1000, "buffer"))
)
METRICS = {"steps": 1.0, "loss-received": 1.0, "loss-trained": 0.5}


def peak(folder: Path, by, study, count: int) -> tuple[float, float]:
    """Models' worth of memory that the fold allocates at its peak, and of what it keeps of that."""
    rng = np.random.default_rng(0)
    spool, names = Spool(folder, SCHEMA), tuple(f"site-{i}" for i in range(count))
    for i, name in enumerate(names):
        spool.add(1, name, {"float32": rng.normal(size=N).astype("float32")}, METRICS | {"steps": i + 1.0})
    base = {"float32": np.zeros(N, "float32")}
    fold = Fold(study, SCHEMA, spool.replies(1, names), [1.0] * count, base, 1, {})
    tracemalloc.start()
    by.fold(fold)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept = sum(values.nbytes for flat in fold.memory.values() for values in flat.values())
    return most / (4 * N), kept / (4 * N)


# Not here: Flower's classes, which hold all updates.
FOLDS = [name for name in STRATEGIES.names() if name != "flower"]


@pytest.mark.parametrize("name", FOLDS)
def test_a_fold_needs_a_few_models_however_many_sites(tmp_path, strategy, study_of, monkeypatch, name: str) -> None:
    monkeypatch.setattr(aggregation, "SLICE", 1 << 15)
    monkeypatch.setattr(robust, "STACK", 1 << 17)
    by = strategy(name)
    few, _ = peak(tmp_path / "few", by, study_of(), 4)
    many, kept = peak(tmp_path / "many", by, study_of(), 24)
    # The result, what is kept, and slices.
    assert many < kept + 2, (few, many, kept)
    assert many < few + 0.3


def test_flowers_classes_need_all_updates_and_their_card_says_so(tmp_path, strategy, study_of) -> None:
    by = strategy("flower", strategy="FedMedian")
    assert peak(tmp_path, by, study_of(), 6)[0] > 6
    assert "all sites' updates at once" in STRATEGIES.get("flower").card.server
