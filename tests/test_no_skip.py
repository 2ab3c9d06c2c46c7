"""In CI a test that needs real scans must not pass by being skipped."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = """
import pytest

@pytest.mark.data
def test_needs_scans(fedscan_data): pass

@pytest.mark.ray
def test_needs_ray(): pytest.importorskip("no_such_module", reason="needs [ray]")

def test_other(): pytest.skip("not on this platform")
"""


def outcomes(folder: Path, **environment: str) -> str:
    shutil.copy(HERE / "conftest.py", folder / "conftest.py")
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  data\n  ray\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FEDSCAN_")}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env=clean | {"PYTHONPATH": str(HERE.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.stdout


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "3 skipped"),
        ({"FEDSCAN_NO_SKIP": "1"}, "1 failed, 1 skipped, 1 error"),
        ({"FEDSCAN_NO_SKIP": "1", "FEDSCAN_DATA": "."}, "1 failed, 1 passed, 1 skipped"),
        ({"FEDSCAN_NO_SKIP": "1", "FEDSCAN_DATA": "/nowhere"}, "names a folder that does not exist: /nowhere"),
    ],
)
def test_skips_of_marked_tests_fail(environment: dict[str, str], says: str, tmp_path: Path) -> None:
    assert says in outcomes(tmp_path, **environment)
