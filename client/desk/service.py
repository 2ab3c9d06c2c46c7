"""What `fedscan site start`, `stop` and `status` do and say."""

import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import click

from client.desk.status import SiteStatus, as_json, find, healthy, lines
from client.identity import Identity
from client.node import FEDSCAN, LOCK, LOG, Node, parts, read_state, running
from client.site import site_of_home
from common.errors import FedscanError
from common.lock import held
from common.log import Form, start_log

START = 300.0  # seconds in which both processes must be up: PyTorch is slow to load from a cold disk
CONNECT = 10.0  # seconds more in which a connection is waited for, before it is told that there is none yet
STOP = 100.0  # more than both processes' grace together


def start(home: Path, foreground: bool, form: Form) -> None:
    """Start both processes; in the background, return when they are up and say what is next.

    Raises:
        IdentityError: The site has not joined.
        StudyError: site.yaml is wrong.
        FedscanError: It runs already (in the foreground), or did not start.
    """
    Identity(home).federation()
    site_of_home(home)
    if foreground:
        start_log(form)
        Node(home, parts(home, form)).run()
        return
    if (pid := running(home)) is not None:
        click.echo(f"the site runs already (process {pid}); see: fedscan site status")
        return
    status = _in_background(home, form)
    click.echo(f"{status.site} runs in the background (process {status.running})")
    _show(status)
    click.echo(f"  its log: {home / LOG}")
    click.echo("A study that the coordinator starts waits here until you approve it: fedscan site study list")
    click.echo(
        "  look: fedscan site status    end: fedscan site stop    after a restart of the machine: start it again"
    )


def _in_background(home: Path, form: Form) -> SiteStatus:
    path, begin = home / LOG, datetime.now(UTC) - timedelta(seconds=1)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        at = os.fstat(file.fileno()).st_size
        child = subprocess.Popen(  # noqa: S603
            [*FEDSCAN, "start", "--foreground", "--home", str(home), "--log", form],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    end, up = time.monotonic() + START, None
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.3)
        node = read_state(home)
        if node is None or node.pid != child.pid:
            continue
        status = find(home)
        link = status.link
        if link is None or link.started < begin or status.trainer is None:
            continue
        up = up or time.monotonic()
        if status.connected or link.problems or time.monotonic() > up + CONNECT:
            return status
    if child.poll() is None:
        child.terminate()
        child.wait(STOP)
    raise FedscanError(f"the site did not start: {_said(path, at)} ({path} says more)")


def _said(path: Path, begin: int) -> str:
    """What was written last."""
    with path.open("rb") as file:
        file.seek(begin)
        said = file.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
    return said[-1].removeprefix("error: ") if said else f"it was not up within {START:g} s"


def stop(home: Path) -> None:
    """Stop both processes and wait until they have ended; raises FedscanError when none runs or they do not end."""
    pid = running(home)
    if pid is None:
        raise FedscanError(f"no site runs in {home} that was started with fedscan site start")
    os.kill(pid, signal.SIGTERM) if pid else None
    end = time.monotonic() + STOP
    while held(home / LOCK):
        if time.monotonic() > end:
            raise FedscanError(f"the site in {home} does not end; its process id is in {home / LOCK}")
        time.sleep(0.1)
    click.echo("the site has ended; what it was working on goes on with the next start")


def show(home: Path, json: bool) -> bool:
    """Print how the site stands; whether nobody needs to do anything."""
    status = find(home)
    if json:
        click.echo(as_json(status))
    else:
        click.echo(f"{status.site or home} in the federation of {status.coordinator or '(none)'}")
        _show(status)
    return status.well


def check(home: Path, process: Literal["link", "trainer"]) -> bool:
    """Print whether one process works, for health checks."""
    well = healthy(home, process)
    click.echo(f"{process}: {'ok' if well else 'does not work'}")
    return well


def _show(status: SiteStatus) -> None:
    for well, what, text in lines(status):
        mark = click.style("✓", fg="green") if well else click.style("✗", fg="red")
        click.echo(f"  {mark} {what:<12} {text}")
