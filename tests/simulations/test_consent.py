"""Who may take part in a run, over the real rounds; sites of the toy federation say no as real ones do, by a code."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from common.errors import APPROVAL_CODES, CheckpointError, RoundError
from server.channel import Plain, Received
from server.checkpoint import State
from server.consent import OPEN, WORDS, Consent, NotAllowedError
from server.events import Events, read_events
from server.joining import Member, join
from server.measured import best_after
from server.report.run import facts
from server.rounds import Run

WAITING, EXPIRED, WITHDRAWN, REJECTED, PURPOSE = (
    f"E_APPROVAL_{word}" for word in ("WAITING", "EXPIRED", "WITHDRAWN", "REJECTED", "PURPOSE")
)


def test_every_code_of_the_sites_has_words() -> None:
    assert set(WORDS) == set(APPROVAL_CODES)
    assert set(OPEN) < set(WORDS)


def test_what_was_said_is_on_disk_and_each_change_an_event(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    consent = Consent(tmp_path / "consent.json", events)
    for reason in (WAITING, WAITING, REJECTED):
        consent.refused("oslo", reason, 0)
    consent.refused("rome", PURPOSE, 2)
    consent.refused("bern", EXPIRED, 3)
    consent.agreed("lund", 3)  # never said no
    again = Consent(tmp_path / "consent.json", events)
    assert [again.trains(s) for s in ("oslo", "rome", "bern", "lund")] == [False, False, False, True]
    assert [again.measures(s) for s in ("oslo", "rome", "bern", "lund")] == [False, True, False, True]
    assert again.open() == ["bern"]
    again.agreed("bern", 4)
    assert again.open() == []
    told = [(e["event"], e["site"], e.get("code")) for e in read_events(tmp_path / "events.jsonl")]
    assert told == [
        ("refused", "oslo", WAITING), ("refused", "oslo", REJECTED), ("refused", "rome", PURPOSE),
        ("refused", "bern", EXPIRED), ("agreed", "bern", None),
    ]  # fmt: skip
    (tmp_path / "consent.json").write_text("[")
    with pytest.raises(CheckpointError, match="remove it"):
        Consent(tmp_path / "consent.json", events)


def test_what_was_said_stands_where_a_crash_undid_its_round(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    Consent(tmp_path / "consent.json", events).refused("oslo", WITHDRAWN, 3)
    events.append("trained", round=3, site="rome")
    events.append("resumed", after=2)
    assert [e["event"] for e in read_events(tmp_path / "events.jsonl")] == ["refused", "resumed"]


class Talking(Plain):
    """A channel on which sites refuse: `says(site)` is the code, if any, of the answer to the question under way."""

    def __init__(self, study: Any, says: Callable[[str, Any], str | None]) -> None:
        super().__init__(study)
        self._says = says

    def messages(self, ask: Any) -> dict[str, Message]:
        self._ask = ask
        return super().messages(ask)

    def received(self, site: str, reply: Message) -> Received:
        code = self._says(site, self._ask)
        if code is not None:
            raise NotAllowedError(code)
        return super().received(site, reply)


def sites_of(events: Sequence[dict[str, Any]], kind: str = "folded") -> list[list[str]]:
    return [e["sites"] for e in events if e["event"] == kind]


def test_rounds_go_on_with_those_who_may(toy: Any, toy_study: Any) -> None:
    """Three sites; one's time is over in round 2 and it comes back in round 4; one withdraws in round 3."""
    for name, seed in (("a", 0), ("b", 100), ("c", 200)):
        toy.add(name, seed)
    study = toy_study(rounds={"number": 5, "quorum": 1.0})
    grid, _ = toy.grid()
    members = sorted(join(grid, study).values(), key=lambda m: m.name)

    def says(site: str, ask: Any) -> str | None:
        if site == "b" and 2 <= ask.round < 4:
            return EXPIRED
        return WITHDRAWN if site == "c" and ask.round >= 3 else None

    asked = []

    def again(sites: Sequence[str], during: int) -> list[Member]:
        asked.append((during, list(sites)))
        back = [m for m in members if m.name in sites and during >= 4]
        for m in back:
            run._consent.agreed(m.name, during)
        return back

    run = Run(grid, study, toy.folder / "run", members, members, channel=Talking(study, says), again=again)
    state = run.start()
    events = read_events(run.folder / "events.jsonl")
    assert sites_of(events) == [["a", "b", "c"], ["a", "c"], ["a"], ["a", "b"], ["a", "b"]]
    assert asked == [(3, ["b"]), (4, ["b"])]
    assert [e["site"] for e in events if e["event"] == "evaluated" and e["part"] == "test"] == ["a", "b"]
    said = [(d["site"], d["during"], d["code"]) for d in facts("run", study, state, events)["decisions"]]
    assert said == [("b", 2, EXPIRED), ("c", 3, WITHDRAWN), ("b", 4, None)]
    assert not [e for e in events if e["event"] == "failed"]


def test_a_site_that_only_measures(toy: Any, toy_study: Any) -> None:
    toy.add("a", 0)
    toy.add("b", 100)
    study = toy_study(rounds={"number": 2, "quorum": 1.0})
    grid, _ = toy.grid()
    members = sorted(join(grid, study).values(), key=lambda m: m.name)
    channel = Talking(study, lambda site, ask: PURPOSE if site == "b" and ask.kind == "train" else None)
    run = Run(grid, study, toy.folder / "run", members, members, channel=channel)
    state = run.start()
    events = read_events(run.folder / "events.jsonl")
    assert sites_of(events) == [["a"], ["a"]]
    for part, rounds in (("validation", [1, 2]), ("test", [state.best_round])):
        here = [(e["round"], e["site"]) for e in events if e["event"] == "evaluated" and e["part"] == part]
        assert sorted(here) == list(itertools.product(rounds, ["a", "b"]))


def test_nobody_left(toy: Any, toy_study: Any) -> None:
    toy.add("a", 0)
    study = toy_study(rounds={"number": 2, "quorum": 0.5})
    grid, _ = toy.grid()
    members = list(join(grid, study).values())
    channel = Talking(study, lambda site, ask: WITHDRAWN if ask.round == 2 else None)
    with pytest.raises(RoundError, match="0 of 0 sites"):
        Run(grid, study, toy.folder / "run", members, members, channel=channel).start()


def measured(number: int, **said: float | None) -> list[dict[str, Any]]:
    """Events; without a value a site tells 0 of no case."""
    return [
        {"event": "evaluated", "part": "validation", "round": number, "site": site, "dice": dice or 0.0,
         "num-examples": float(dice is not None)}
        for site, dice in said.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "best"),
    [
        ({"a": 0.8, "b": 0.7, "c": 0.3}, (3, 0.6)),  # the same sites: no better than it was
        ({"a": 0.8, "b": 0.7, "c": 0.6}, (5, 0.7)),
        ({"a": 0.7, "b": 0.7}, (3, 0.6)),  # without the hard site, over the others
        ({"a": 0.9, "b": 0.7}, (5, 0.8)),
        ({"a": 0.1, "d": 0.1}, (5, 0.1)),  # a newcomer did not measure the best one
        ({"a": 0.9, "b": None, "c": None}, (5, 0.9)),  # where rightly nothing is found, nothing tells of the round
        ({"a": 0.7, "b": 0.9, "c": None}, (5, 0.8)),
        ({"a": None, "b": None, "c": None}, (3, 0.6)),
    ],
)
def test_rounds_are_compared_where_both_were_measured(
    tmp_path: Path, said: dict[str, float | None], best: tuple[int, float]
) -> None:
    state = State("0" * 64, round=5, best_round=3, best_metric=0.6)
    events = Events(tmp_path / "events.jsonl")
    for event in (*measured(2, a=0.1, b=0.1, c=0.1, d=0.1), *measured(3, a=0.8, b=0.7, c=0.3)):
        events.append(event.pop("event"), **event)
    assert best_after(5, said, state, events.path) == (best[0], pytest.approx(best[1]))


def test_a_round_that_drew_what_is_not_there_is_not_the_best(tmp_path: Path) -> None:
    """At site b no label is there: it tells 0 as long as something is drawn, and nothing when the model has learnt."""
    events, state = Events(tmp_path / "events.jsonl"), State("0" * 64)
    for number, said in enumerate([{"a": 0.5, "b": 0.0}, {"a": 0.7, "b": None}, {"a": 0.6, "b": None}], start=1):
        for event in measured(number, **said):
            events.append(event.pop("event"), **event)
        state.best_round, state.best_metric = best_after(number, said, state, events.path)
    assert (state.best_round, state.best_metric) == (2, 0.7)
    alone = State("0" * 64, best_round=1, best_metric=0.0)
    assert best_after(2, {"b": None}, alone, events.path) == (0, -1.0)
