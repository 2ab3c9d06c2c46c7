"""All that a site needs before it starts, as a list of ticks and remedies.

Nothing is started, activated or changed. Nothing that is said names a patient, a case or a single scan.
"""

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import click
from packaging.requirements import Requirement

from client.desk.findings import Check, ok, problem, skipped
from client.handover.peer import group_number
from client.identity import Identity
from client.node import running
from client.site import SiteConfig, site_of_home
from common.certificates import read_certificate
from common.errors import FedscanError, StudyError
from common.keys import FORBIDDEN, read_small
from common.lock import held

Process = Literal["link", "trainer"]

RENEW_DAYS = 30
FREE = 5_000_000_000  # bytes: a task, its reply, a checkpoint within the round, logs
PROCESSES: tuple[Process, ...] = ("link", "trainer")


def examine(home: Path, part: Process | None = None, study: Path | None = None) -> Iterator[Check]:
    """Check after check, in the order in which they should be put right.

    Args:
        home: The site's folder.
        part: Only what this process needs and may see; both if none.
        study: A study file that the data are held against.
    """
    yield _versions()
    settings, config = _settings(home)
    yield settings
    for process in PROCESSES:
        if part in (None, process):
            yield _keys(home, process)
    if part != "trainer":
        yield _certificate(home)
        yield from _network(home, config)
    yield _disk(home)
    if part != "link":
        yield from _work(config, home, study)
    yield _lock(home)


def show(home: Path, part: Process | None, study: Path | None, as_json: bool) -> bool:
    """Print the list; whether all is well."""
    checks: list[Check] = []
    for check in examine(home, part, study):
        checks.append(check)
        if not as_json:
            click.echo(_line(check))
    wrong = [check for check in checks if check.state == "problem"]
    if as_json:
        click.echo(json.dumps({"well": not wrong, "checks": [check.__dict__ for check in checks]}, indent=1))
    elif wrong:
        click.echo(f"{len(wrong)} of {len(checks)} to put right")
    else:
        click.echo("all well; next: fedscan site start")
    return not wrong


def _line(check: Check) -> str:
    mark = {"ok": click.style("✓", fg="green"), "problem": click.style("✗", fg="red"), "skipped": "-"}[check.state]
    remedy = f"\n    {'':<12} → {check.remedy}" if check.remedy else ""
    return f"  {mark} {check.name:<12} {check.what}{remedy}"


def _versions() -> Check:
    wrong = []
    for text in requires("fedscan") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} instead of {wanted.specifier}")
    here = f"fedscan {version('fedscan')}, Python {sys.version.split()[0]}, PyTorch {version('torch')}"
    if wrong:
        return problem("versions", f"{here}: {'; '.join(wrong)}", "Install fedscan anew into an environment of its own")
    return ok("versions", here)


def _settings(home: Path) -> tuple[Check, SiteConfig | None]:
    name = "site.yaml"
    try:
        config = site_of_home(home)
    except FileNotFoundError:
        return problem(name, f"there is none in {home}", "Run: fedscan site init --name NAME, or name --home"), None
    except StudyError as error:
        return problem(name, str(error), "Correct the line that is named"), None
    except OSError as error:
        return problem(name, f"cannot be read ({error.strerror})", f"Let this user read {home / 'site.yaml'}"), None
    group = config.operators.group
    if group is not None:
        try:
            group_number(group)
        except FedscanError as error:
            return problem(name, str(error), "Or take the line out: then only the trainer's own user decides"), config
    rule = config.approval
    if rule.rule == "signer":
        wanted = "every study of the coordinator runs without anybody's word"
    else:
        people = "one person" if rule.approvers == 1 else "two people"
        wanted = f"a study runs once {people} {f'of the group {group} ' if group else ''}approved it"
    return ok(name, f"valid; {wanted}"), config


def _keys(home: Path, process: Process) -> Check:
    """Whether a process' keys are there, fit what was joined, and are nobody else's to read."""
    name, folder, identity = f"{process} keys", home / process, Identity(home)
    try:
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            return skipped(name, f"belong to another user; run this as that one, with --part {process}")
        if process == "link":
            identity.link_credentials()
        else:
            identity.trainer_credentials()
    except FedscanError as error:
        return problem(name, str(error), "Put right what is said here")
    loose = [p.name for p in (folder, *folder.iterdir()) if _loose(p)]
    if loose:
        wrong = f"others may read or write {', '.join(loose)}"
        return problem(name, wrong, f"Run: chmod 700 {folder} && chmod -R go-rwx {folder}")
    return ok(name, f"complete and private, in {folder}")


def _loose(path: Path) -> bool:
    mode = path.stat().st_mode
    secret = stat.S_ISDIR(mode) or path.name == "node_key" or path.suffix == ".pem"
    return secret and bool(mode & FORBIDDEN)


def _certificate(home: Path) -> Check:
    name = "certificate"
    try:
        federation = Identity(home).federation()
        path = Identity(home).certificate_path(federation.certificate)
        certificate = read_certificate(read_small(path, 64 * 1024).decode("utf-8", "replace"), str(path))
    except FedscanError as error:
        return problem(name, str(error), "Send the request to the coordinator; then: fedscan site join NAME.join")
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    until = f"{federation.site}, valid until {certificate.not_valid_after_utc:%Y-%m-%d} ({days} days)"
    if certificate.not_valid_before_utc > datetime.now(UTC):
        return problem(name, f"{until}, but not yet", "Set this machine's clock (NTP)")
    if days < RENEW_DAYS:
        remedy = (
            "Ask the coordinator for a new join file (fedscan server site renew), then: fedscan site join NAME.join"
        )
        return problem(name, until if days >= 0 else f"{until}: it has expired", remedy)
    return ok(name, until)


def _network(home: Path, config: SiteConfig | None) -> Iterator[Check]:
    from client.desk.findings_network import network

    try:
        credentials = Identity(home).link_credentials()
    except FedscanError:
        yield skipped("connection", "needs the link's keys and the certificate")
        return
    if config is None:
        yield skipped("connection", "needs site.yaml")
        return
    yield from network(credentials, config.network)


def _disk(home: Path) -> Check:
    name = "disk"
    if not os.access(home, os.R_OK | os.X_OK):
        return problem(name, f"{home} cannot be entered", "Give the folder to the user whom fedscan runs as")
    free = {where: shutil.disk_usage(where).free for where in (home, home / "cache", home / "shared") if where.is_dir()}
    least = min(free, key=lambda where: free[where])
    said = f"{free[least] / 1e9:.0f} GB free in {least}"
    if free[least] < FREE:
        return problem(
            name, said, f"Make room: {FREE / 1e9:.0f} GB, and several times the size of the scans for cache/"
        )
    return ok(name, said)


def _work(config: SiteConfig | None, home: Path, study: Path | None) -> Iterator[Check]:
    from client.desk.findings_data import data, device

    if config is None:
        yield skipped("data", "needs site.yaml")
        return
    yield device(config)
    yield from data(config, home, study)


def _lock(home: Path) -> Check:
    name, pid = "processes", running(home)
    if pid is not None:
        return ok(name, f"run already (process {pid}); see: fedscan site status")
    alone = [process for process in PROCESSES if os.access(home / process, os.X_OK) and held(home / process / "lock")]
    if alone:
        return ok(name, f"{' and '.join(alone)} already at work as a service")
    return ok(name, "none runs yet; the home is free")
