"""A run as it goes on, in a terminal: from its first event on, whenever one begins to watch."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server.events import Event, happened
from server.report.html import duration
from server.report.sentences import number
from server.service.control import Seen
from server.service.queue import ENDED, RunRecord
from server.service.terminal import coloured

DOING = {"join": "joining", "train": "training", "evaluate": "evaluating"}


@dataclass
class Watched:
    """What is known of a run so far."""

    record: RunRecord | None = None
    events: list[Event] = field(default_factory=list)

    def take(self, seen: Seen) -> Event | None:
        """Note what the server told; returns the event, if it was one."""
        if seen.record is not None:
            self.record = seen.record
        if seen.event is None:
            return None
        event: Event = json.loads(seen.event)
        happened(self.events, event)
        return event

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.record is not None and self.record.status in ENDED

    def round(self) -> int:
        """The last round that counted."""
        return max((e["round"] for e in self.events if e["event"] == "checkpoint"), default=0)

    def best(self) -> tuple[int, float] | None:
        """The best round so far and its mean validation Dice over the sites."""
        best = next((e["best_round"] for e in reversed(self.events) if e.get("best_round")), 0)
        dice = [e["dice"] for e in self.events if _scored(e) and e["round"] == best]
        return (best, sum(dice) / len(dice)) if dice else None

    def asked(self) -> Event | None:
        """The last question to the sites, unless the run has moved on since."""
        last = next((e for e in reversed(self.events) if e["event"] in ("asked", "checkpoint", "stopped")), None)
        return last if last is not None and last["event"] == "asked" else None

    def left(self, now: datetime) -> timedelta | None:
        """Time until the deadline of the last question."""
        asked = self.asked()
        if asked is None or not asked.get("deadline"):
            return None
        return datetime.fromisoformat(asked["time"]) + timedelta(seconds=asked["deadline"]) - now

    def rest(self) -> float | None:
        """Seconds that the other rounds will take, if they take as long as those so far."""
        marks = [datetime.fromisoformat(e["time"]) for e in self.events if e["event"] in ("started", "checkpoint")]
        if self.record is None or not self.record.rounds or len(marks) < 2:
            return None
        return (marks[-1] - marks[0]).total_seconds() / (len(marks) - 1) * (self.record.rounds - self.round())

    def sites(self) -> dict[str, dict[str, Any]]:
        """By site: `state`, `dice` (the last validation), `rounds` (that it trained in) and `failures`."""
        found: dict[str, dict[str, Any]] = {}
        asked = self.asked()
        since = self.events.index(asked) if asked else len(self.events)
        for i, e in enumerate(self.events):
            for name in e.get("sites", ()):
                found.setdefault(name, {"state": "", "dice": None, "rounds": 0, "failures": 0})
            if "site" not in e:
                continue
            site = found.setdefault(e["site"], {"state": "", "dice": None, "rounds": 0, "failures": 0})
            site["rounds"] += e["event"] == "trained"
            site["failures"] += e["event"] == "failed"
            if _scored(e):
                site["dice"] = e["dice"]
            if i > since or e["event"] in ("left", "refused"):
                site["state"] = _word(e)
        for name in asked["sites"] if asked else ():
            found[name]["state"] = found[name]["state"] or DOING[asked["what"]] if asked else ""
        return found


def show(seen: Iterable[Seen], console: Console) -> RunRecord | None:
    """Show a run until it has ended: a live screen in a terminal, lines elsewhere. Returns its last record."""
    watched = Watched()
    if not console.is_terminal:
        for one in seen:
            status = watched.record.status if watched.record else None
            event = watched.take(one)
            if event is not None and (text := line(event)):
                console.print(text, soft_wrap=True)
            elif event is None and watched.record is not None and watched.record.status != status:
                console.print(f"{watched.record.name} is {watched.record.status}")
        return watched.record
    with Live(console=console, refresh_per_second=4, get_renderable=lambda: screen(watched)):
        for one in seen:
            watched.take(one)
    return watched.record


def screen(watched: Watched) -> RenderableType:
    """The live screen."""
    record = watched.record
    if record is None:
        return Text("")
    head = Text.assemble((record.name, "bold"), "  ", coloured(record.status))
    done, best, rest = watched.round(), watched.best(), watched.rest()
    parts: list[RenderableType] = [head]
    bar = Table.grid(padding=(0, 1))
    facts = [f"{done} of {record.rounds} rounds" if record.rounds else "a given model is judged"]
    facts += [f"best Dice {number(best[1])} (round {best[0]})"] if best else []
    facts += [f"about {duration(rest)} left"] if rest and not watched.ended else []
    bar.add_row(
        ProgressBar(total=record.rounds or 1, completed=done or watched.ended, width=30),
        " · ".join(facts),
    )
    parts.append(bar)
    asked = watched.asked()
    if asked is not None and record.status == "running":
        left = watched.left(datetime.now(UTC))
        until = "" if left is None else f", waits {duration(max(left.total_seconds(), 0.0))} more at most"
        what = "joining" if asked["what"] == "join" else _during(asked["round"], DOING[asked["what"]])
        parts.append(Text(f"{what}{until}"))
    parts.append(_sites(watched.sites()))
    if record.why:
        parts.append(Text(record.why, style="red"))
    return Group(*parts)


def line(event: Event) -> str | None:
    """An event as a line; None for one that says nothing to a person."""
    told: dict[str, Callable[[Event], str]] = {
        "asked": lambda e: (
            f"{DOING[e['what']]}: asked {', '.join(e['sites'])}"
            + (f"; waits {duration(e['deadline'])} at most" if e.get("deadline") else "")
        ),
        "joined": lambda e: (
            f"{e['site']} joined with {e['train']} training cases" if e["train"] else f"{e['site']} joined"
        ),
        "trained": lambda e: f"{e['site']} trained, loss {e['loss']:.4f}, {duration(e['seconds'])}",
        "evaluated": lambda e: f"{e['site']} {e['part']} Dice {number(e['dice'] if e['num-examples'] else None)}",
        "failed": lambda e: f"{e['site']} failed: {e['why']}",
        "audit": lambda e: f"{e['site']}: {e['why']}",
        "left": lambda e: f"{e['site']} takes part no more",
        "refused": lambda e: f"{e['site']} takes no part: {e['why']}",
        "agreed": lambda e: f"{e['site']} takes part from now on",
        "resumed": lambda e: f"goes on after round {e['after']}",
        "stopped": lambda e: f"{e['replies']} {'updates' if e['round'] else 'answers'} came, {e['needed']} are needed",
        "checkpoint": lambda e: f"counted; best so far is round {e['best_round']}" if e["round"] else "validated",
        "finished": lambda e: (
            f"finished in {duration(e['seconds'])}" + (f"; the best round is {e['best_round']}" if e["round"] else "")
        ),
    }
    say = told.get(event["event"])
    if say is None:
        return None
    where = f"round {event['round']}: " if event.get("round") else ""
    return f"{event['time'][11:19]} {where}{say(event)}"


def _during(number: int, doing: str) -> str:
    return f"round {number}: {doing}" if number else doing


def _sites(sites: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("site")
    table.add_column("now")
    for column in ("Dice", "rounds", "failures"):
        table.add_column(column, justify="right")
    for name, s in sites.items():
        style = "red" if s["state"].startswith("failed") else ""
        table.add_row(
            Text(name), Text(s["state"], style=style), number(s["dice"]), str(s["rounds"]), str(s["failures"] or "")
        )
    return table


def _word(event: Event) -> str:
    """What an event says of its site's state."""
    if event["event"] == "failed":
        return f"failed: {event['why']}"
    if event["event"] == "trained":
        return f"trained, loss {event['loss']:.3f}"
    if event["event"] == "refused":
        return f"takes no part: {event['why']}"
    return {"joined": "joined", "evaluated": "evaluated", "left": "takes part no more"}.get(event["event"], "")


def _scored(event: Event) -> bool:
    return bool(event["event"] == "evaluated" and event["part"] == "validation" and event["num-examples"] > 0)
