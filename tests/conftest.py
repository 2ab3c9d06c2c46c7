"""What all tests share: quiet libraries, one thread, the real scans, and no silent skips where none are wanted."""

import common.quiet  # noqa: F401

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Read by PyTorch and NumPy when they are imported. One thread: sums have one order, and test runs can share a machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

STRICT_MARKERS = ("data", "ray")
# Their files take longest; begun first, none of them is left to run alone at the end while other processes idle.
LONGEST = ("e2e", "simulations", "security")


@pytest.fixture(scope="session")
def fedscan_data() -> Path:
    """The folder of real scans that FEDSCAN_DATA names; the test is skipped without one."""
    value = os.environ.get("FEDSCAN_DATA", "")
    if not value:
        pytest.skip("FEDSCAN_DATA is not set: it names the folder of real scans")
    folder = Path(value).resolve()
    if not folder.is_dir():
        pytest.skip(f"FEDSCAN_DATA names a folder that does not exist: {folder}")
    return folder


@pytest.fixture(autouse=True)
def umask_stays() -> Iterator[None]:
    """A test that leaves the process with another umask breaks those after it, which ones being chance."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    after = os.umask(before)
    assert after == before, f"the test leaves umask {after:o}, it was {before:o}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folders of long files first (xdist keeps that order with --no-loadscope-reorder)."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With FEDSCAN_NO_SKIP=1 a skipped test that needs scans or Ray fails: CI must not pass by skipping it."""
    report = yield
    strict = any(item.get_closest_marker(name) for name in STRICT_MARKERS)
    if report.skipped and strict and os.environ.get("FEDSCAN_NO_SKIP") == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped although FEDSCAN_NO_SKIP=1: {reason}"
    return report
