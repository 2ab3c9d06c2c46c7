"""The site's brake: acknowledged within a second, nothing leaves after it, and no bit is lost by it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest
import torch

from client.handover.control import Progress, TrainerBusyError, TrainerStatus
from client.handover.files import REPLY
from client.handover.mailbox import Mailbox, read_reply
from client.hours import open_at
from client.site import SiteConfig
from client.training import train
from client.work.audit import entries
from client.work.replies import write_reply
from common.cli import run as fedscan
from common.study import Study
from tests.client.conftest import Hospital
from tests.client.test_midround import Trainers, pid
from tests.e2e.conftest import World
from tests.e2e.site_home import running, serving
from tests.e2e.test_site_link import Site, answer, negated, weights
from tests.e2e.unreliable import Line

STEPS = 60


@pytest.fixture(scope="module")
def trainers() -> Iterator[Trainers]:
    found = Trainers()
    yield found
    found.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def until(done: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def events(home: Path) -> list[tuple[str, str]]:
    return [(entry.event, entry.who) for entry, _ in entries(home / "trainer" / "audit.jsonl")]


def long_study(hospital: Hospital) -> Study:
    return hospital.study(training={"steps": STEPS, "batch": 2, "rate": 0.01})


def of_the_steps(status: TrainerStatus) -> int:
    """How many are done; before the first one cases are counted."""
    return status.done if status.of == STEPS else 0


def update(hospital: Hospital, last: Progress) -> dict[str, bytes]:
    assert (last.state, last.code) == ("done", None)
    assert last.reply is not None
    return read_reply(hospital.mailbox, last.reply).arrays


def test_a_pause_in_the_middle_of_a_step_costs_no_bit_also_after_a_kill(
    hospital: Hospital, trainers: Trainers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, home = long_study(hospital), hospital.home
    calm = Hospital(tmp_path / "calm", tmp_path / "calm-chains", hospital.scans)
    trainers.start(calm)
    wanted = update(calm, calm.ask(study))
    trainers.stop(calm)

    trainers.start(hospital)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            hospital.ask(study)
        except TrainerBusyError as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: of_the_steps(hospital.client.status()) >= 3)
    begin = time.monotonic()
    code = fedscan(["site", "pause", "--home", str(home), "--why", "the scanner needs the GPU"])
    assert time.monotonic() - begin < 1.0
    assert (code, "nothing leaves" in capsys.readouterr().out) == (0, True)
    asking.join(20)
    assert ended
    done = hospital.client.status().done
    assert 3 <= done < STEPS
    assert hospital.client.status().paused is not None

    def nothing_is_there() -> None:
        assert sorted(p.name for p in hospital.mailbox.folder.glob("*.safetensors")) == ["task.safetensors"]
        assert hospital.mailbox.paused
        with pytest.raises(TrainerBusyError):
            hospital.ask(study)

    nothing_is_there()
    os.kill(pid(hospital), signal.SIGKILL)
    assert trainers.ended()["code"] == -signal.SIGKILL
    trainers.start(hospital)
    nothing_is_there()
    assert fedscan(["site", "unpause", "--home", str(home)]) == 0
    assert not hospital.mailbox.paused
    assert update(hospital, hospital.ask(study)) == wanted
    said = trainers.stop(hospital)
    assert "the round goes on after step" in said["said"]
    told = events(home)
    assert [e for e, _ in told if e in ("paused", "unpaused", "sent")] == ["paused", "unpaused", "sent"]
    assert {who for e, who in told if e in ("paused", "unpaused")} == {getuser()}


def test_a_reply_that_is_ready_is_taken_back_and_given_again(hospital: Hospital) -> None:
    study = hospital.study()
    with hospital.trainer() as trainer:
        last = hospital.ask(study)
        path = hospital.mailbox.folder / REPLY
        raw = path.read_bytes()
        begin = time.monotonic()
        trainer.brakes.pause("ada")
        assert time.monotonic() - begin < 1.0
        assert not path.exists()
        assert hospital.mailbox.path(REPLY, held=True).stat().st_mode & 0o777 == 0o600
        trainer.brakes.unpause("ada")
        assert path.read_bytes() == raw
        assert path.stat().st_mode & 0o777 == 0o640
        assert hospital.ask(study) == last.model_copy(update={"done": 0, "of": 0})


def test_a_reply_that_is_made_while_the_pause_begins_stays_in(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest moment: the reply is written and signed, and only its name is missing."""
    study = hospital.study()

    with hospital.trainer() as trainer:

        def written(*args: Any) -> Any:
            ref = write_reply(*args)
            trainer.brakes.pause("ada")
            return ref

        monkeypatch.setattr("client.work.trainer.write_reply", written)
        with pytest.raises(TrainerBusyError):
            hospital.ask(study)
        assert not (hospital.mailbox.folder / REPLY).exists()
        monkeypatch.undo()
        trainer.brakes.unpause("ada")
        assert update(hospital, hospital.ask(study))
    assert [e for e, _ in events(hospital.home)].count("sent") == 1


def test_no_byte_of_a_reply_leaves_once_the_link_has_let_go(world: World) -> None:
    """In the middle of an object, over a line that takes half a minute for it, with buffers full on the way."""
    site = Site(world)
    flat, mailbox = weights(3), Mailbox(site.home)
    with world.start() as server, Line(server.port) as line, serving(site.trainer):

        def slow(_: str) -> None:
            line.rate = 400_000

        site.trainer.work_on = slow
        with running(site.make(line.port)) as link:
            until(lambda: "oslo" in server.fleet.online())
            before = line.total["up"]
            sent = site.send(server, "task", flat)
            until(lambda: line.total["up"] - before > 1_000_000)
            begin = time.monotonic()
            mailbox.withhold(REPLY)
            mailbox.say_paused(True)
            until(lambda: link.standing.paused, 1)
            assert time.monotonic() - begin < 1.0
            time.sleep(1.0)  # for what the line itself has in its hands: what its system had received before
            up = line.total["up"]
            time.sleep(3)
            # Heartbeats and questions for tasks go on, some hundred bytes each; of the reply it would be 1.2 MB.
            assert line.total["up"] - up < 50_000
            assert json.loads(mailbox.link_status.read_text())["paused"]
            assert not list(server.grid.pull_messages([sent]))
            line.rate = None
            mailbox.release(REPLY)
            mailbox.say_paused(False)
            assert negated(answer(server, sent), flat)
            assert site.trainer.trained == ["task"]


def test_hours() -> None:
    def at(clock: str, *windows: str) -> bool:
        return open_at(windows, datetime.fromisoformat(f"2026-11-21T{clock}"))

    night = "20:00-06:00"
    assert [at(t, night) for t in ("19:59:59", "20:00", "23:59", "00:00", "05:59", "06:00", "12:00")] == [
        False, True, True, True, True, False, False,
    ]  # fmt: skip
    assert [at(t, "09:00-12:00", "13:00-24:00") for t in ("08:59", "09:00", "12:00", "13:00", "23:59:59", "00:00")] == [
        False, True, False, True, True, False,
    ]  # fmt: skip
    assert at("03:00")
    with pytest.raises(ValueError, match="pattern"):
        SiteConfig.model_validate({"name": "oslo", "data": ".", "hours": ["8-12"]})


def test_outside_its_hours_a_site_waits_and_what_it_began_goes_on_later(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, opened = long_study(hospital), [True]
    hospital.configure(hours="['20:00-06:00']")
    monkeypatch.setattr("client.work.brakes.open_at", lambda windows, now: opened[0] or not windows)
    with hospital.trainer() as trainer:
        ended: list[BaseException] = []

        def ask() -> None:
            try:
                hospital.ask(study)
            except TrainerBusyError as error:
                ended.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: of_the_steps(trainer.status()) >= 3)
        opened[0] = False
        asking.join(20)
        assert ended
        assert trainer.status().hours == ("20:00-06:00",)
        with pytest.raises(TrainerBusyError):
            hospital.ask(study)
        opened[0] = True
        assert hospital.ask(study).state == "done"


def test_hours_that_are_taken_out_of_site_yaml_hold_no_task_back(hospital: Hospital) -> None:
    now = datetime.now()
    later = [f"{(now + timedelta(hours=h)):%H:%M}" for h in (2, 3)]
    hospital.configure(hours=f"['{later[0]}-{later[1]}']")
    with hospital.trainer() as trainer:
        for _ in range(2):
            with pytest.raises(TrainerBusyError):
                hospital.ask(hospital.study(), 0, "join")
        hospital.configure()
        assert hospital.ask(hospital.study(), 0, "join").state == "done"
        assert trainer.status().hours == ()


def test_with_too_little_room_on_the_disk_nothing_is_begun(hospital: Hospital) -> None:
    hospital.configure(limits="{disk: 1000000000}")
    with hospital.trainer():
        last = hospital.ask(hospital.study(), 0, "join")
        assert (last.state, last.code) == ("refused", "E_STORAGE")
        assert not (hospital.home / "cache").exists()
        hospital.configure()
        assert hospital.ask(hospital.study(), 0, "join").state == "done"


def test_threads_are_limited_until_the_limit_is_lifted(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    before = torch.get_num_threads()

    def counted(*args: Any, **kwargs: Any) -> float:
        found.append(torch.get_num_threads())
        return train(*args, **kwargs)

    monkeypatch.setattr("client.app.train", counted)
    hospital.configure(limits="{threads: 3}")
    with hospital.trainer():
        assert hospital.ask(hospital.study()).state == "done"
        hospital.configure()
        assert hospital.ask(hospital.study(), 2).state == "done"
    assert found == [3, before]
