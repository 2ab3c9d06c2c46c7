"""One hospital with its phantoms, and its coordinator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.phantom import make_phantom
from tests.client.conftest import Hospital
from tests.e2e.conftest import World
from tests.security.federation import Federation


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("scans"), sites=1, cases=6)[0]


@pytest.fixture
def hospital(tmp_path: Path, scans: Path) -> Hospital:
    return Hospital(tmp_path / "h", tmp_path / "chains", scans)


@pytest.fixture
def federation(tmp_path: Path, scans: Path) -> Iterator[Federation]:
    world = World(tmp_path)
    yield Federation(world, scans)
    world.close()
