"""The coordinator's memory does not grow with its sites."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def federation(folder: Path, parameters: int, sites: int, rounds: int) -> dict:
    driver = Path(__file__).with_name("many_sites.py")
    command = [sys.executable, str(driver), str(folder), str(parameters), str(sites), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.full
def test_24_sites_take_no_more_memory_than_3(tmp_path: Path) -> None:
    few = federation(tmp_path / "few", 4_000_000, 3, 3)
    many = federation(tmp_path / "many", 4_000_000, 24, 3)
    assert many["peak"] < 1.2 * few["peak"]


@pytest.mark.full
def test_24_sites_finish_20_rounds(tmp_path: Path) -> None:
    assert len(federation(tmp_path, 100_000, 24, 20)["seconds"]) == 20
