"""Records over gRPC on a Unix socket, and what a watcher sees of a run."""

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console

from common.errors import FedscanError, IdentityError, SignatureError, StudyError
from common.records import Record
from common.rpc import Call, Empty, RpcClient, RpcServer, address
from server.service.control import ControlClient, NoServerError, Seen, told, untold
from server.service.control_service import Lines
from server.service.queue import RunRecord
from server.service.watch import Watched, line, screen, show

RECORD = RunRecord(
    name="r-1",
    study="s",
    digest="0" * 64,
    rounds=3,
    status="running",
    place=1,
    created=datetime(2030, 1, 1, tzinfo=UTC),
)


class Word(Record):
    """A word."""

    word: str


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    def answer(request: Word, context: grpc.ServicerContext) -> Word:
        if request.word == "bad":
            raise StudyError("a bad word")
        return Word(word=request.word[::-1])

    def count(request: Word, context: grpc.ServicerContext) -> Iterator[Word]:
        yield from (Word(word=c) for c in request.word)
        if request.word == "bad":
            raise StudyError("bad at its end")

    path = tmp_path / "s.sock"
    with RpcServer(path, "fedscan.Test", {"One": Call(Word, answer), "Many": Call(Word, count, stream=True)}, 0o600):
        yield path
    assert not path.exists()


def test_records_cross_both_ways(socket: Path) -> None:
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    with RpcClient(socket, "fedscan.Test") as client:
        assert client.call("One", Word(word="é∀"), Word, 10).word == "∀é"
        assert [w.word for w in client.stream("Many", Word(word="abc"), Word)] == ["a", "b", "c"]
        with pytest.raises(grpc.RpcError) as found:
            client.call("One", Word(word="bad"), Word, 10)
        assert (found.value.code(), found.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "a bad word")
        with pytest.raises(grpc.RpcError) as found:
            list(client.stream("Many", Word(word="bad"), Word))
        assert found.value.details() == "bad at its end"
        with pytest.raises(grpc.RpcError) as found:
            client.call("One", Empty(), Word, 10)
        assert found.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("of a process that was killed")
    with RpcServer(path, "fedscan.Test", {"One": Call(Word, lambda r, _: r)}, 0o660) as _:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with RpcClient(path, "fedscan.Test") as client:
            assert client.call("One", Word(word="a"), Word, 10).word == "a"


def test_a_long_path_is_spelled_relatively_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    with pytest.raises(FedscanError, match="choose a shorter folder"):
        address(deep / "s.sock")
    monkeypatch.chdir(deep)
    assert address(deep / "s.sock") == "unix:s.sock"
    with RpcServer(deep / "s.sock", "fedscan.Test", {"One": Call(Word, lambda r, _: r)}, 0o600):
        assert stat.S_ISSOCK((deep / "s.sock").stat().st_mode)


@pytest.mark.parametrize("error", [StudyError("a\nb"), IdentityError("ü"), FedscanError("x")])
def test_errors_cross_as_what_they_are(error: FedscanError) -> None:
    found = untold(told(error))
    assert (type(found), str(found)) == (type(error), str(error))


def test_an_error_that_cannot_be_rebuilt_keeps_its_words() -> None:
    assert str(untold(told(SignatureError("form", "wrong")))) == "wrong"
    assert "oops" in str(untold("oops"))
    assert "1" in str(untold("1"))


def test_no_server_is_said_with_the_remedy(tmp_path: Path) -> None:
    with ControlClient(tmp_path) as client, pytest.raises(NoServerError, match="--home"):
        client.status()
    (tmp_path / "coordinator.json").touch()
    with ControlClient(tmp_path) as client, pytest.raises(NoServerError, match="fedscan server start"):
        client.runs()
    with ControlClient(tmp_path) as client, pytest.raises(StudyError, match="is not the name of a run"):
        client.abort("../x")


def test_lines_are_told_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = Lines(path)
    assert list(lines.new()) == []
    path.write_text("a\nb\nhal")
    assert list(lines.new()) == ["a", "b"]
    with path.open("a") as file:
        file.write("f\n")
    assert list(lines.new()) == ["half"]
    # A torn line is cut off by the next process.
    with path.open("a") as file:
        file.write("torn")
    assert list(lines.new()) == []
    os.truncate(path, path.stat().st_size - 4)
    with path.open("a") as file:
        file.write("new\n")
    assert list(lines.new()) == ["new"]


# Watching


def event(kind: str, second: int, **facts: Any) -> Seen:
    return Seen(event=json.dumps({"time": f"2030-01-01T10:00:{second:02d}.000+00:00", "event": kind, **facts}))


SITES = ["oslo", "rome"]


def evaluated(second: int, number: int, site: str, dice: float, part: str = "validation") -> Seen:
    return event("evaluated", second, round=number, part=part, site=site, dice=dice, seconds=1.0, **{"num-examples": 2})


def trained(second: int, number: int, site: str) -> Seen:
    facts = {"num-examples": 4, "steps": 2, "loss": 0.5, "seconds": 1.5, "bytes": 8}
    return event("trained", second, round=number, site=site, **facts)


BEGIN = [
    Seen(record=RECORD),
    event("asked", 0, round=0, what="join", sites=SITES, deadline=60.0),
    event("joined", 1, round=0, site="oslo", train=4, validation=1, test=1, patients=6, steps=2),
    event("joined", 2, round=0, site="rome", train=4, validation=1, test=1, patients=6, steps=2),
    event("started", 3, sites=SITES, digest="0" * 64, rounds=3, bytes=8),
    event("asked", 3, round=1, what="train", sites=SITES, deadline=30.0),
    trained(5, 1, "oslo"),
    trained(6, 1, "rome"),
    event("folded", 6, round=1, sites=SITES),
    event("asked", 6, round=1, what="evaluate", sites=SITES, deadline=30.0),
    evaluated(7, 1, "oslo", 0.2),
    evaluated(8, 1, "rome", 0.4),
    event("checkpoint", 9, round=1, best_round=1),
    event("asked", 9, round=2, what="train", sites=SITES, deadline=30.0),
    trained(11, 2, "oslo"),
    event("failed", 12, round=2, site="rome", why="E_DATA"),
]


def watched(seen: list[Seen]) -> Watched:
    found = Watched()
    for one in seen:
        found.take(one)
    return found


def test_what_a_watcher_knows() -> None:
    found = watched(BEGIN)
    assert (found.round(), found.best()) == (1, (1, pytest.approx(0.3)))
    assert found.rest() == pytest.approx(12)  # two more rounds of the 6 s that the first took
    sites = found.sites()
    assert sites["oslo"] == {"state": "trained, loss 0.500", "dice": 0.2, "rounds": 2, "failures": 0}
    assert sites["rome"] == {"state": "failed: E_DATA", "dice": 0.4, "rounds": 1, "failures": 1}
    assert found.left(datetime(2030, 1, 1, 10, 0, 19, tzinfo=UTC)) == timedelta(seconds=20)


def test_a_question_makes_sites_busy_until_they_answer() -> None:
    found = watched(BEGIN[:6])
    assert {n: s["state"] for n, s in found.sites().items()} == {"oslo": "training", "rome": "training"}
    found = watched(BEGIN[:7])
    assert {n: s["state"] for n, s in found.sites().items()} == {"oslo": "trained, loss 0.500", "rome": "training"}
    found = watched(BEGIN[:13])
    assert {s["state"] for s in found.sites().values()} == {""}
    assert found.asked() is None


def test_what_a_crash_undid_is_not_counted() -> None:
    found = watched([*BEGIN, event("resumed", 20, after=1)])
    assert found.sites()["oslo"]["rounds"] == 1
    assert found.round() == 1


def test_a_screen_and_lines_say_it_all() -> None:
    console = Console(width=100, record=True, force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(screen(watched(BEGIN)))
        text = console.export_text()
        for part in ("r-1", "running", "1 of 3 rounds", "0.300 (round 1)", "round 2: training", "failed: E_DATA"):
            assert part in text
        failed = RECORD.model_copy(update={"status": "failed", "why": "too few"})
        assert show([*BEGIN, Seen(record=failed)], console) == failed
        text = console.export_text()
    for part in ("joining: asked oslo, rome", "round 2: rome failed: E_DATA", "r-1 is failed", "validation Dice 0.200"):
        assert part in text


def test_every_kind_of_event_can_be_told() -> None:
    """Kinds that say nothing to a person give no line; none may fail."""
    others = [event("left", 1, round=2, site="rome"), event("resumed", 1, after=1), event("new", 1),
              event("stopped", 1, round=2, replies=1, needed=2),
              event("finished", 1, round=3, seconds=5.0, best_round=2)]  # fmt: skip
    found = Watched()
    told_lines = [line(e) for seen in (*BEGIN, *others) if (e := found.take(seen)) is not None]
    assert sum(text is None for text in told_lines) == 3  # started, folded, new
