"""`fedscan site start`, `status` and `stop` as they are typed, against a real server."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.node import running
from tests.e2e.deployment import FEDSCAN, Deployment, wait_until


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "f")
    made.init()
    made.enrol("oslo", data=str(tmp_path))
    yield made
    if running(made.site_home("oslo")) is not None:
        made.fedscan("site", "stop", "--home", "oslo")
    made.close()


def typed(federation: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*FEDSCAN, "site", *arguments, "--home", "oslo"]
    return subprocess.run(
        command, cwd=federation.folder, env=federation.environment, capture_output=True, text=True, check=False
    )


def status(federation: Deployment, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(federation.fedscan("site", "status", "--home", "oslo", "--json", code=code))
    return found


def test_a_site_from_start_to_stop(federation: Deployment) -> None:
    federation.start_server()
    said = federation.fedscan("site", "start", "--home", "oslo")
    assert "oslo runs in the background" in said
    assert "✓ connection   since" in said
    assert "✓ training     waits for the first task, on cpu" in said
    assert "runs already" in federation.fedscan("site", "start", "--home", "oslo")
    assert "all well" not in federation.fedscan("site", "status", "--home", "oslo", "--check", "link")
    before = status(federation)
    assert (before["well"], before["connected"], before["site"]) == (True, True, "oslo")

    # Both are killed; the node starts them again, and the site is connected as before.
    for name in ("link", "trainer"):
        os.kill(before["node"]["parts"][name]["pid"], signal.SIGKILL)

    def back() -> bool:
        done = typed(federation, "status", "--json")
        if done.returncode != 0:
            return False
        parts = json.loads(done.stdout)["node"]["parts"]
        return {p["deaths"] for p in parts.values()} == {1}

    wait_until(back, 120, lambda: (federation.site_home("oslo") / "node.log").read_text()[-3000:])

    # Without a server the processes stay, and people are told.
    federation.kill("server.process")
    wait_until(lambda: not json.loads(typed(federation, "status", "--json").stdout)["connected"], 60)
    shown = federation.fedscan("site", "status", "--home", "oslo", code=1)
    assert "✗ connection   none since" in shown
    assert "nothing listens" in shown
    for process in ("link", "trainer"):
        assert "ok" in federation.fedscan("site", "status", "--home", "oslo", "--check", process)

    assert "has ended" in federation.fedscan("site", "stop", "--home", "oslo")
    assert running(federation.site_home("oslo")) is None
    ended = status(federation, code=1)
    assert (ended["process"], ended["trainer"]) == (None, None)
    for process in ("link", "trainer"):
        federation.fedscan("site", "status", "--home", "oslo", "--check", process, code=1)


def test_what_cannot_start_says_why(federation: Deployment) -> None:
    home = federation.site_home("oslo")
    (home / "link" / "node_key").chmod(0o644)
    (home / "node.log").mkdir()
    done = typed(federation, "start")
    assert done.returncode == 1
    assert "node.log" in done.stderr
    assert "Traceback" not in done.stderr
