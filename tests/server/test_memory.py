"""The coordinator's memory: a few models, however many sites. Oracle: Python's own count of allocations."""

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.wire import Schema
from simulations.benchmarks.memory import run, study

WIDTH = 26  # 5.1 million parameters


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Without the cyclic collector, what must go at once cannot be cleaned away late."""
    gc.disable()
    yield
    gc.enable()


def peak(sites: int, folder: Path) -> float:
    """Models at the peak; arrays, messages and slices count, the net that gives the first weights does not."""
    tracemalloc.start()
    run(study(WIDTH), sites, folder)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / Schema.of(study(WIDTH)).nbytes


@pytest.mark.usefixtures("_no_collector")
def test_a_few_models_however_many_sites(tmp_path: Path) -> None:
    run(study(2), 1, tmp_path / "first")  # imports on first use
    few, many = peak(3, tmp_path / "few"), peak(24, tmp_path / "many")
    assert many <= 4
    # A site that left anything of its update behind would add a model each; messages and events of a site are small.
    assert many <= 1.05 * few
