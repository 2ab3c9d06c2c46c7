"""The operator's desk for runs: finds the signed study, asks the server, shows what it says."""

import json
import shutil
from pathlib import Path

import click
from rich.console import Console

from common.cli import DONE, FINDINGS
from common.documents import Document
from common.errors import FedscanError, IdentityError, SignatureError, StudyError
from common.keys import read_small
from common.manifests import SignedStudy, read_signed_study
from common.signing import MAX_SIGNED_BYTES
from common.study import study_of
from server.service.control import ControlClient, NoServerError
from server.service.queue import GOES_ON, RunRecord
from server.service.starts import bring_start
from server.service.terminal import print_runs
from server.service.watch import show


def start(
    path: Path, sites: tuple[str, ...] | None, watch_it: bool, home: Path, weights: Path | None = None
) -> int:  # fmt: skip
    """Put a signed study into the queue; see `fedscan run start`. Returns the exit code."""
    signed = signed_study(path)
    bring_start(home, signed, path, weights)
    with ControlClient(home) as client:
        record = client.start(signed, sites)
        ahead = [s.record.name for s in client.runs().runs
                 if s.record.status in ("queued", "running") and s.record.place < record.place]  # fmt: skip
    click.echo(f"run {record.name} is in the queue" + (f", after {', '.join(ahead)}" if ahead else ""))
    if watch_it:
        return watch(record.name, home)
    click.echo(f"  see it go on: fedscan run watch {record.name}")
    return DONE


def signed_study(path: Path) -> SignedStudy:
    """The signed study in `path`, or of the study file in `path`.

    Raises:
        StudyError: It is not signed, or was changed since; or this is neither kind of file.
    """
    if path.suffix in (".yaml", ".yml"):
        return _signed_of(path)
    try:
        return read_signed_study(read_small(path, 2 * MAX_SIGNED_BYTES))
    except (SignatureError, IdentityError) as error:
        raise StudyError(f"{path} is no signed study ({error}); sign a study with: fedscan study sign STUDY") from None


def _signed_of(path: Path) -> SignedStudy:
    """What was signed of the study file `path`, found beside it."""
    study = study_of(Document.read(path))
    beside = path.with_suffix(".signed.json")
    if not beside.exists():
        raise StudyError(f"{path} is not signed yet; sign it with: fedscan study sign {path}")
    signed = signed_study(beside)
    if signed.study.body.encode() != study.canonical():
        raise StudyError(
            f"{path} was changed after {beside} was signed. Move {beside} away and sign it again (fedscan study sign "
            f"{path}), or start what was signed: fedscan run start {beside}"
        )
    return signed


def list_runs(as_json: bool, home: Path) -> None:
    """Show all runs; see `fedscan run list`."""
    with ControlClient(home) as client:
        found = client.runs()
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False))
        return
    print_runs(found.runs, Console())
    if found.damaged:
        raise FedscanError("\n".join(found.damaged))


def watch(run: str | None, home: Path, as_json: bool = False) -> int:
    """Show a run until it has ended; see `fedscan run watch`. Returns the exit code."""
    with ControlClient(home) as client:
        name = run or _latest(client)
        seen = client.watch(name)
        last: RunRecord | None = None
        try:
            if as_json:
                for one in seen:
                    last = one.record or last
                    click.echo(one.event if one.event is not None else one.model_dump_json(exclude={"event"}))
            else:
                last = show(seen, Console())
        except NoServerError:
            raise NoServerError(_ended(name, home)) from None
    if last is None or last.status not in ("finished", *GOES_ON):
        raise NoServerError(_ended(name, home))
    if as_json:
        return DONE if last.status == "finished" else FINDINGS
    if last.status == "finished":
        click.echo(f"  report and model: fedscan run report {name}")
        return DONE
    if last.why:
        click.echo(f"{name} failed: {last.why}", err=True)
    click.echo(f"  to go on where it stopped: fedscan run resume {name}", err=True)
    return FINDINGS


def report(run: str | None, out: Path | None, home: Path) -> None:
    """Write the report of a run; see `fedscan run report`."""
    with ControlClient(home) as client:
        found = client.report(run or _latest(client))
    folder = home / found.folder
    if out is not None:
        for name in found.files:
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target)
        folder = out
    for name in found.files:
        click.echo(str(folder / name))


def _latest(client: ControlClient) -> str:
    """The run that goes on, else the one that was put in last."""
    runs = client.runs().runs
    if not runs:
        raise StudyError("there is no run yet; begin with: fedscan run start STUDY.signed.json")
    running = [s for s in runs if s.record.status == "running"]
    return (running or runs)[-1].record.name


def _ended(run: str, home: Path) -> str:
    return (
        f"the server ended while {run} was watched; the run goes on when it is started again: "
        f"fedscan server start --home {home}"
    )
