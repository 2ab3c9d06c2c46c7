"""The Dockerfiles, judged by hadolint, and what goes into an image."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
# There are wheels for Linux on x86-64 only, where it is part of the extra [dev].
elsewhere = pytest.mark.skipif(
    HADOLINT is None and platform.machine() != "x86_64", reason="hadolint has no wheel for this machine"
)


def hadolint(*files: Path) -> subprocess.CompletedProcess[str]:
    assert HADOLINT is not None, "hadolint is missing: pip install -e '.[dev]'"
    return subprocess.run([HADOLINT, "--no-color", *map(str, files)], capture_output=True, text=True, check=False)


@elsewhere
def test_hadolint_finds_nothing() -> None:
    assert [f.suffix for f in DOCKERFILES] == [".server", ".site"]
    judged = hadolint(*DOCKERFILES)
    assert (judged.returncode, judged.stdout) == (0, "")


@elsewhere
def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN sudo true\nRUN pip install x\n")
    judged = hadolint(bad)
    assert judged.returncode != 0
    assert {"DL3004", "DL3006", "DL3013"} <= set(re.findall(r"DL\d{4}", judged.stdout))


def final_stage(path: Path) -> list[str]:
    return re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8").rpartition("\nFROM ")[2]).splitlines()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.suffix[1:])
def test_image_runs_as_nobody_of_the_host_and_tells_nobody(path: Path) -> None:
    lines = final_stage(path)
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert 'ENTRYPOINT ["fedscan"]' in lines
    (env,) = (line for line in lines if line.startswith("ENV"))
    assert {"FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "HF_HUB_OFFLINE=1"} <= set(env.split())
    # Only the finished environment comes over: no source, no wheels, no installer's cache.
    assert [line for line in lines if line.startswith(("COPY", "ADD"))] == [
        "COPY --from=build /opt/fedscan /opt/fedscan"
    ]
    assert "ARG BASE=python:3.11-slim-bookworm" in path.read_text(encoding="utf-8").splitlines()


def test_both_images_are_made_alike() -> None:
    # Coordinator and sites must hold the same versions of the same code; only user, home and GPU differ.
    def steps(path: Path) -> str:
        return "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if "COPY" in line)

    site, server = (DEPLOY / f"Dockerfile.{name}" for name in ("site", "server"))
    assert steps(site) == steps(server)


def test_context_holds_code_and_nothing_else() -> None:
    # An allow-list: a folder of scans or keys beside the code cannot get into an image.
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for path in DOCKERFILES
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert allowed == copied


def test_versions_in_the_image_are_versions_that_the_project_allows() -> None:
    pinned = dict(
        line.split("==")
        for line in (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    assert [str(r) for r in wanted if pinned.get(canonicalize_name(r.name)) is None] == []
    assert [str(r) for r in wanted if not r.specifier.contains(pinned[canonicalize_name(r.name)])] == []
