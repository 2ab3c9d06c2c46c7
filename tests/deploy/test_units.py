"""The systemd units, judged by systemd itself, and the Apptainer definition."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@needs_systemd
def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    program = tmp_path / "fedscan"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/fedscan/bin/fedscan", str(program))
        (tmp_path / unit.name).write_text(text)
    copies = [str(tmp_path / unit.name) for unit in UNITS]
    judged = subprocess.run(["systemd-analyze", "verify", "--man=no", *copies], capture_output=True, text=True)
    ours = [line for line in judged.stderr.splitlines() if "fedscan" in line]
    assert ours == []
    (tmp_path / "fedscan-link.service").write_text("[Service]\nExecStart=/bin/true\nProtectSysten=strict\n")
    again = subprocess.run(["systemd-analyze", "verify", "--man=no", copies[0]], capture_output=True, text=True)
    assert "ProtectSysten" in again.stderr


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda u: u.stem)
def test_systemd_calls_it_well_protected(unit: Path) -> None:
    # The exposure level of systemd-analyze: 10 is a service without any protection, below 2 it says "OK".
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True, check=True)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert level is not None
    assert float(level[1]) < 2


def test_link_and_trainer_are_two_users_who_share_one_folder() -> None:
    trainer, link = (settings(DEPLOY / "systemd" / f"fedscan-{name}.service") for name in ("trainer", "link"))
    assert trainer["User"] != link["User"]
    assert trainer["Group"] == link["Group"]
    assert trainer["PrivateNetwork"] == ["yes"]
    assert trainer["RestrictAddressFamilies"] == ["AF_UNIX"]
    writes = [set(unit["ReadWritePaths"][0].split()) for unit in (trainer, link)]
    assert writes[0] & writes[1] == {"/var/lib/fedscan/shared"}
    assert "/var/lib/fedscan/link" in trainer["InaccessiblePaths"][0]
    hidden = " ".join(link["InaccessiblePaths"]).split()
    assert {"/var/lib/fedscan/trainer", "/var/lib/fedscan/operators", "-/srv/scans"} <= set(hidden)
    assert trainer["ReadOnlyPaths"] == ["-/srv/scans"]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda u: u.stem)
def test_a_service_is_started_again_for_ever_and_logs_json(unit: Path) -> None:
    found = settings(unit)
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["always"], ["0"])
    assert found["ExecStart"][0].endswith("--log json")
    assert (found["NoNewPrivileges"], found["CapabilityBoundingSet"], found["ProtectSystem"]) == (
        ["yes"], [""], ["strict"]
    )  # fmt: skip


def test_apptainer_runs_the_same_image_apart() -> None:
    text = (DEPLOY / "apptainer" / "site.def").read_text(encoding="utf-8")
    assert text.startswith("Bootstrap: docker-daemon\nFrom: fedscan-site")
    sections = re.findall(r"^%(\w+)", text, re.MULTILINE)
    assert sections == ["environment", "runscript", "startscript", "test"]
    commands = re.sub(r"\\\n#\s*", "", text)
    trainer, link = (
        next(line for line in commands.splitlines() if f"site {name} --log" in line) for name in ("trainer", "link")
    )
    assert "--network none" in trainer
    assert "/data:ro" in trainer
    assert "/data" not in link
    assert "trainer:/site/trainer" not in link
    assert "operators" in trainer
    assert "operators" not in link
    assert all("--containall" in line and "--no-privs" in line for line in (trainer, link))
