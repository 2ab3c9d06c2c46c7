"""The commands `fedscan data check` and `prepare`: the same work, told in two ways."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client.data.gate.codes import LEAVING_OUT
from client.data.gate.page import Checked, write_page
from client.data.gate.privacy import check_privacy
from client.data.gate.share import shared
from client.data.prepare import prepare as make_ready
from client.data.volume import Finding, SiteData
from client.site import SiteConfig, home_of, places, site_of_file
from common.disk import write_whole
from common.errors import StudyError
from common.section import Part
from common.study import Study, load_study

PAGE = "data-check.html"
_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_SHOWN = 3  # cases named per kind of finding
_REMEDIES = 3  # and remedies
_USED_FOR: tuple[Part, ...] = ("train", "validation", "test")


def check(study_file: Path, site_file: Path, html: Path | None, share: Path | None, as_json: bool) -> bool:
    """Read every case, show what is wrong, write the page; whether there is no error, and a case to use."""
    study, site, home = opened(study_file, site_file)
    data = _prepared(study, site, home, as_json, insist=False)
    data = replace(data, findings=(*data.findings, *check_privacy(data.found, site.data)))
    page = html or home / PAGE
    write_page(page, _checked(study, site, data))
    if share is not None:
        text = json.dumps(shared(home, data.findings, len(data.found)), indent=1, sort_keys=True) + "\n"
        write_whole(share, lambda part: part.write_text(text, encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({**_counts(data), "findings": [asdict(f) for f in data.findings], "page": str(page)}))
    else:
        for line in (*_usable(site, data), *by_severity(data.findings)):
            click.echo(line)
        click.echo(f"with pictures, for this site only: {page}")
        if share is not None:
            click.echo(f"without anything that names a patient or a file, to show the coordinator: {share}")
    return bool(data.usable) and not any(finding.severity == "error" for finding in data.findings)


def prepare(study_file: Path, site_file: Path, as_json: bool) -> None:
    """Make every case ready; raises DataError when none can be used."""
    study, site, home = opened(study_file, site_file)
    started = time.monotonic()
    data = _prepared(study, site, home, as_json, insist=True)
    if as_json:
        click.echo(json.dumps(_counts(data)))
        return
    for line in (*_usable(site, data), *by_severity(_left_out(data))):
        click.echo(line)
    click.echo(f"ready in {places(home).cache}, after {time.monotonic() - started:.0f} s")


def _prepared(study: Study, site: SiteConfig, home: Path, quiet: bool, *, insist: bool) -> SiteData:
    cache, runs = places(home)
    with bars(quiet) as shown:
        return make_ready(
            study, site, cache=cache, home=runs, listing=shown.of("looking at files"),
            progress=shown.of("reading cases"), insist=insist,
        )  # fmt: skip


def _checked(study: Study, site: SiteConfig, data: SiteData) -> Checked:
    usable = {case.id: case for case in data.usable}
    parts = {case.id: part for part in _USED_FOR for case in getattr(data, part)}
    return Checked(site.name, study, [(case, usable.get(case.id)) for case in data.found], data.findings, parts)


def opened(study_file: Path, site_file: Path) -> tuple[Study, SiteConfig, Path]:
    """The study, the site and the site's home that a command names; raises StudyError for a wrong file."""
    if not site_file.exists():
        raise StudyError(
            f"{site_file}: no such file. Name the site's file with --site; two lines are enough: `name: our-hospital` "
            "and `data: /folder/with/scans`"
        )
    return load_study(study_file), site_of_file(site_file), home_of(site_file)


class _Bars:
    """Bars on standard error, each from when it is first moved."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def of(self, what: str) -> Callable[[int, int], None] | None:
        """For (done, of) of `what`; none for scripts."""
        if self._progress is None:
            return None
        shown, task = self._progress, self._progress.add_task(what, total=None, visible=False)
        return lambda done, total: shown.update(task, completed=done, total=total, visible=True)


@contextmanager
def bars(quiet: bool) -> Iterator[_Bars]:
    """Progress for people; nothing for scripts."""
    if quiet:
        yield _Bars(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)


def _counts(data: SiteData) -> dict[str, object]:
    parts = {part: len(getattr(data, part)) for part in _USED_FOR}
    left_out = Counter(finding.code for finding in _left_out(data))
    return {"found": len(data.found), "usable": len(data.usable), "parts": parts, "patients": len(data.patients),
            "left_out": dict(left_out)}  # fmt: skip


def _left_out(data: SiteData) -> list[Finding]:
    """Why cases are left out."""
    return [f for f in data.findings if f.severity == "error" or f.code in LEAVING_OUT]


def _usable(site: SiteConfig, data: SiteData) -> Iterator[str]:
    parts = [f"{len(getattr(data, part))} {name}" for part, name in zip(_USED_FOR, ("training", "validation", "test"),
                                                                        strict=True)]  # fmt: skip
    usable = len(data.usable)
    yield (
        f"site {site.name}: {usable} of {len(data.found)} cases can be used ({', '.join(parts)}), "
        f"of {len(data.patients)} patients"
    )


def by_severity(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines that say what was found, errors first, some cases of each kind, and what to do."""
    for severity in _COLOURS:
        kinds = Counter(finding.code for finding in findings if finding.severity == severity)
        for code, number in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])):
            own = [finding for finding in findings if (finding.severity, finding.code) == (severity, code)]
            yield f"{click.style(severity, fg=_COLOURS[severity]):<7} {code}: {number}"
            for finding in own[:_SHOWN]:
                yield f"        {finding.case + ': ' if finding.case else ''}{finding.what}"
            if number > _SHOWN:
                yield f"        … and {number - _SHOWN} more"
            for remedy in list(dict.fromkeys(finding.remedy for finding in own))[:_REMEDIES]:
                yield f"      → {remedy}"
