"""The page: one HTML file without scripts, links or anything fetched, readable by its owner only.

Whatever came from outside (names, a study's description) is text here and nothing else: everything is escaped, the
pictures and curves are drawn by this code, and the page forbids itself all scripts and connections.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.report.books import size
from client.report.gather import Facts
from client.report.pictures import colour
from common.disk import write_whole
from common.figures import Point
from common.pages import templates

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT = 560, 150
_STATES = {"waiting": "waits for a decision", "approved": "approved", "rejected": "rejected",
           "withdrawn": "withdrawn", "expired": "the approval has ended"}  # fmt: skip


def write_page(path: Path, facts: Facts) -> None:
    """Write the page to `path`, with mode 0600; raises StorageError."""
    text = render(facts)

    def write(part: Path) -> None:
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    write_whole(path, write)


def render(facts: Facts) -> str:
    """The page as text."""
    jinja = templates(_HERE, dice=dice, size=size, when=lambda t: t.astimezone().strftime("%d %B %Y, %H:%M"))
    newest = facts.newest
    labels = newest.study.data.labels if newest else ()
    return jinja.get_template("page.html.j2").render(
        f=facts,
        newest=newest,
        here=facts.models[0].here if facts.models else None,
        labels=labels,
        colours=[(name, colour(value)) for value, name in enumerate(labels, start=1)],
        short=in_short(facts),
        curve=curve(newest.card.figures.curve) if newest else None,
        findings=findings(facts),
        states=_STATES,
        total=sum(run.nbytes for run in facts.books.runs),
        updates=sum(run.updates for run in facts.books.runs),
        others=sum(run.others for run in facts.books.runs),
    )


def dice(value: float | None) -> str:
    """A Dice coefficient for people; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.2f}"


def in_short(facts: Facts) -> list[tuple[str, str]]:
    """The page in a few sentences, each with its tone."""
    said: list[tuple[str, str]] = []
    if facts.models:
        line, here = facts.models[0], facts.models[0].here
        overall = f" On your own {len(here.rows)} test cases its mean Dice is {dice(here.overall)}." if here else ""
        came = f"{_count(len(facts.models), 'model')} came home; the newest is {line.model.name}."
        said.append(("good", came + overall))
    else:
        said.append(("info", "No model has come home yet: one comes when a run in which you took part ends."))
    waiting = [s.name for s in facts.books.studies if s.state == "waiting"]
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        said.append(
            ("open", f"{_count(len(waiting), 'study', 'studies')} {verb} for a decision: {', '.join(waiting)}.")
        )
    if facts.books.runs:
        nbytes = size(sum(run.nbytes for run in facts.books.runs))
        said.append(("info", f"{nbytes} left in all: weights of nets and means over cases; no scan, no mask, no name."))
    else:
        said.append(("info", "Nothing has left this site."))
    errors = {f.case for f in facts.findings if f.severity == "error"}
    if errors:
        verb = "is" if len(errors) == 1 else "are"
        said.append(("open", f"{_count(len(errors), 'case')} {verb} left out; below stands why, and what to do."))
    if not facts.books.sealed[1]:
        said.append(("bad", "The audit log was altered: have it looked into before the site goes on."))
    if facts.wrong:
        said.append(("open", "Something could not be shown: see the end of the page."))
    return said


def findings(facts: Facts) -> list[dict[str, Any]]:
    """Findings by what they say, errors first."""
    order = ("error", "warning", "info")
    groups: dict[tuple[str, str], list[Any]] = {}
    for finding in facts.findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    ranked = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), -len(item[1]), item[0][1]))
    return [
        {"severity": severity, "title": code.replace("-", " "), "some": some,
         "remedies": list(Counter(f.remedy for f in some))}
        for (severity, code), some in ranked
    ]  # fmt: skip


def curve(points: Sequence[Point]) -> dict[str, Any] | None:
    """Where the line of the validation Dice runs in a picture of 560 x 150; none with fewer than two points."""
    if len(points) < 2:
        return None
    first, last = points[0].round, points[-1].round
    step = _WIDTH / max(last - first, 1)
    line = " ".join(f"{(p.round - first) * step:.1f},{_HEIGHT * (1 - p.dice):.1f}" for p in points)
    best = max(points, key=lambda p: p.dice)
    return {"line": line, "first": first, "last": last, "best": best,
            "x": round((best.round - first) * step, 1), "y": round(_HEIGHT * (1 - best.dice), 1)}  # fmt: skip


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
