"""A round that is interrupted ends with the same bits as one that is not: the oracle is the calm round itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from client.corrections import Proximal
from client.handover.control import TrainerGoneError
from client.handover.files import COUNTS, REPLY, ReplyFile
from client.handover.mailbox import read_reply
from client.training import Progress, Span, channels_last, make_optimizer, optimizer_tensors, train
from client.work.midround import Midround
from common.keys import private_folder
from common.lock import held
from common.study_training import Training

Hospital = Any
STEPS = 6


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write after each step, whatever it costs."""
    monkeypatch.setattr("client.work.midround.EVERY", 0.0)
    monkeypatch.setattr("client.work.midround.SHARE", 1e9)


class Interrupted(BaseException):
    pass


def make_net() -> nn.Module:
    """All that a step can depend on: layouts, running statistics, random numbers of dropout."""
    torch.manual_seed(5)
    return channels_last(
        nn.Sequential(
            nn.Conv3d(1, 7, 3, padding=1), nn.BatchNorm3d(7), nn.Dropout(0.4), nn.ReLU(), nn.Conv3d(7, 3, 3, padding=1)
        )
    )


def batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(start, STEPS):
        random = torch.Generator().manual_seed(step)
        image = torch.randn(2, 1, 6, 6, 6, generator=random)
        yield image, torch.randint(0, 3, (2, 6, 6, 6), generator=random)


def a_round(settings: Training, progress: Progress, stop_after: int = STEPS) -> tuple[float, dict[str, Tensor]]:
    """Mean loss, weights and moments of a round; stopped by an exception after so many of its steps."""
    net = make_net()
    optimizer = make_optimizer(net, settings)
    torch.manual_seed(11)

    def on_step() -> None:
        if progress.done == stop_after < STEPS:
            raise Interrupted

    span = Span(12, STEPS, 40)
    loss = train(net, nn.CrossEntropyLoss(), optimizer, batches(progress.done), settings, span,
                 Proximal(0.1), on_step, progress)  # fmt: skip
    return loss, {**net.state_dict(), **dict(optimizer_tensors(optimizer))}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.usefixtures("each_step")
def test_an_interrupted_round_ends_with_the_same_bits(tmp_path: Path, optimizer: Any) -> None:
    settings = Training(optimizer=optimizer, rate=0.01, steps=STEPS, clip=1.0, warmup=2)
    loss, wanted = a_round(settings, Progress())
    path = tmp_path / "midround.safetensors"
    for stop in (1, 4, 5):
        with pytest.raises(Interrupted):
            a_round(settings, Midround(path, "key"), stop)
        # Something else of this process draws random numbers in between.
        torch.rand(100)
    goes_on = Midround(path, "key")
    assert goes_on.done == 5
    found_loss, found = a_round(settings, goes_on)
    assert found_loss == loss
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)
    # Moments lie in memory as their weights do, so that vector instructions meet the same neighbours.
    if optimizer == "adamw":
        assert found["optimizer.0.exp_avg"].stride() == wanted["optimizer.0.exp_avg"].stride()
        assert not found["optimizer.4.exp_avg"].is_contiguous()


@pytest.mark.usefixtures("each_step")
def test_nothing_is_taken_from_another_round_or_from_a_damaged_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "midround.safetensors"
    settings = Training(rate=0.01, steps=STEPS)
    with pytest.raises(Interrupted):
        a_round(settings, Midround(path, "key"), 2)
    assert Midround(path, "key").done == 2
    assert Midround(path, "other").done == 0
    path.write_bytes(path.read_bytes()[:-7])
    assert Midround(path, "key").done == 0
    assert "midround.safetensors is damaged: the round begins anew" in caplog.text


class Clock:
    """Seconds pass as the test says; writing takes `write` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, write: float) -> None:
        import client.work.midround as midround

        self.now, self.written = 0.0, []
        save = midround.save_file

        def slow(*args: Any, **kwargs: Any) -> None:
            self.now += write
            self.written.append(self.now)
            save(*args, **kwargs)

        monkeypatch.setattr(midround, "save_file", slow)

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("write", "wanted"), [(0.5, [60.5, 121.0]), (3.0, [63.0, 366.0])])
def test_writing_takes_no_more_than_a_hundredth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: float, wanted: list[float]
) -> None:
    """Every 60 s; where a write takes 3 s, 300 s pass before the next."""
    clock, net = Clock(monkeypatch, write), nn.Linear(1, 1)
    optimizer = make_optimizer(net, Training(steps=1))
    progress = Midround(tmp_path / "m", "key", clock=clock)
    while len(clock.written) < 2:
        clock.now += 0.5
        progress.add(0.0, net, optimizer)
    assert clock.written == wanted
    assert Midround(tmp_path / "m", "key").seconds == pytest.approx(wanted[1] - write)


def test_it_is_written_at_once_when_the_work_is_stopped(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    wanted = False
    progress = Midround(tmp_path / "m", "key", lambda: wanted)
    progress.add(1.5, net, make_optimizer(net, Training(steps=1)))
    assert not (tmp_path / "m").exists()
    wanted = True
    progress.add(2.25, net, make_optimizer(net, Training(steps=1)))
    again = Midround(tmp_path / "m", "key")
    assert (again.done, again.total) == (2, 3.75)


@pytest.mark.usefixtures("each_step")
def test_a_full_disk_costs_the_checkpoint_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    settings = Training(rate=0.01, steps=STEPS)
    found = a_round(settings, Midround(tmp_path / "file" / "m", "key"))
    wanted = a_round(settings, Progress())
    assert found[0] == wanted[0]
    assert caplog.text.count("no checkpoint inside the round") == STEPS


# From here on: real trainers in processes of their own, and real kills.

POINTS = {
    "before the task is kept": ("client.work.accepted:AcceptedRuns.keep", 1, "kill"),
    "between keeping it and the work": ("client.work.trainer:Trainer._do", 1, "kill"),
    "while a case is prepared": ("client.data.cache:_publish", 3, "kill"),
    "in the first step": ("client.training:rate_at", 1, "kill"),
    "in the third step": ("client.training:rate_at", 3, "kill"),
    "while the open round is written": ("client.work.midround:save_file", 2, "torn"),
    "after the last step": ("client.app:send", 1, "kill"),
    "while the site keeps its state": ("client.work.state:save_file", 1, "torn"),
    "before the reply is written": ("client.handover.files:write_whole", 1, "kill"),
    "after the reply was written": ("client.work.workshop:Workshop.finished", 1, "kill"),
    "before the reply is named": ("client.work.trainer:Trainer._end", 1, "kill"),
}


class Trainers:
    """Starts trainers, one at a time, each in a process that a warm parent forks."""

    def __init__(self) -> None:
        self._open: Hospital | None = None
        driver = Path(__file__).with_name("killed_trainer.py")
        self._driver = subprocess.Popen(
            [sys.executable, str(driver)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, hospital: Hospital, *more: str, **moment: Any) -> None:
        if self._open is not None:
            # A test that failed left it: the driver starts one after the other.
            os.kill(pid(self._open), signal.SIGKILL)
            self.ended()
        self._open = hospital
        args = ["site", "trainer", "--home", str(hospital.home), *more]
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps({"args": args, **moment}) + "\n")
        deadline = time.monotonic() + 120
        while True:
            try:
                hospital.client.status()
                return
            except TrainerGoneError:
                assert time.monotonic() < deadline, self.ended()
                time.sleep(0.05)

    def ended(self) -> dict[str, Any]:
        """How the last one ended: code and standard error."""
        assert self._driver.stdout is not None
        found: dict[str, Any] = json.loads(self._driver.stdout.readline())
        self._open = None
        return found

    def stop(self, hospital: Hospital) -> dict[str, Any]:
        """End it with SIGTERM."""
        os.kill(pid(hospital), signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.close()
        self._driver.stdout.close()
        self._driver.wait(60)


def pid(hospital: Hospital) -> int:
    return int((hospital.home / "trainer" / "lock").read_text())


@pytest.fixture(scope="module")
def trainers() -> Iterator[Trainers]:
    found = Trainers()
    yield found
    found.close()


def update(hospital: Hospital, last: Any) -> ReplyFile:
    assert last.state == "done"
    reply = read_reply(hospital.mailbox, last.reply)
    assert reply.arrays
    return reply


def facts(reply: ReplyFile) -> tuple[Any, Any]:
    """All that must not depend on how it came about: everything but time and salt."""
    assert reply.metrics is not None
    return reply.arrays, {**reply.metrics, "seconds": 0}


def two_rounds(hospital: Hospital) -> tuple[Any, Any]:
    study = hospital.study()
    first = facts(update(hospital, hospital.ask(study, 1)))
    second = facts(update(hospital, hospital.ask(study, 2, acknowledged=1, flat=hospital.weights(study, 2))))
    return first, second


CALM: list[Any] = []


@pytest.fixture
def undisturbed(hospital: Hospital, trainers: Trainers, tmp_path: Path) -> Any:
    """The two rounds when nothing happens; made once."""
    if not CALM:
        other = type(hospital)(tmp_path / "calm", tmp_path / "calm-chains", hospital.scans)
        trainers.start(other)
        CALM.append(two_rounds(other))
        assert trainers.stop(other)["code"] == 0
    return CALM[0]


def points() -> list[Any]:
    """One of each class in every run: before, in and after the work, and with the reply written."""
    always = ("while a case is prepared", "in the third step", "before the reply is written",
              "after the reply was written")  # fmt: skip
    return [pytest.param(p, marks=() if p in always else pytest.mark.full) for p in POINTS]


@pytest.mark.parametrize("point", points())
def test_killed_at_any_point_the_round_ends_with_the_same_bits(
    hospital: Hospital, trainers: Trainers, undisturbed: Any, point: str
) -> None:
    study = hospital.study()
    at, call, what = POINTS[point]
    trainers.start(hospital, at=at, call=call, what=what)
    with pytest.raises(TrainerGoneError):
        hospital.ask(study, 1)
    assert trainers.ended()["code"] == -signal.SIGKILL
    # Written out of the link's reach, or given to it already.
    places = (hospital.mailbox.path(REPLY, held) for held in (True, False))
    before = next((path.read_bytes() for path in places if path.exists()), None)
    trainers.start(hospital)
    assert two_rounds(hospital) == undisturbed
    said = trainers.stop(hospital)
    assert said["code"] == 0
    went_on = "the round goes on after step" in said["said"]
    assert went_on == (point in ("in the third step", "while the open round is written", "after the last step",
                                 "while the site keeps its state", "before the reply is written"))  # fmt: skip
    assert (before is not None) == (point in ("after the reply was written", "before the reply is named"))
    if before is not None:
        assert "run-1/1/train/train: done" not in said["said"]


def test_a_stored_reply_outlives_a_kill_byte_for_byte(hospital: Hospital, trainers: Trainers) -> None:
    study = hospital.study()
    trainers.start(hospital)
    first = hospital.ask(study, 1)
    raw = (hospital.mailbox.folder / REPLY).read_bytes()
    os.kill(pid(hospital), signal.SIGKILL)
    assert trainers.ended()["code"] == -signal.SIGKILL
    assert not held(hospital.home / "trainer" / "lock")
    trainers.start(hospital)
    assert hospital.ask(study, 1).reply == first.reply
    trainers.stop(hospital)
    assert (hospital.mailbox.folder / REPLY).read_bytes() == raw


def test_sigterm_ends_in_order_and_the_round_goes_on(hospital: Hospital, trainers: Trainers) -> None:
    study = hospital.study(training={"steps": 2000, "batch": 2, "rate": 0.01})
    trainers.start(hospital)
    messages = hospital.client.work(hospital.put(study))
    while next(messages).of != 2000 or hospital.client.status().done < 2:
        pass
    ended = trainers.stop(hospital)
    assert ended["code"] == 0
    assert "stopped" in ended["said"]
    assert "Traceback" not in ended["said"]
    with pytest.raises(TrainerGoneError):
        list(messages)
    assert not hospital.mailbox.socket.exists()
    trainers.start(hospital)
    next(hospital.client.work(hospital.put(study)))
    while hospital.client.status().of != 2000:
        time.sleep(0.05)
    assert "the round goes on after step" in trainers.stop(hospital)["said"]


def test_nothing_of_it_is_on_the_internet(hospital: Hospital, trainers: Trainers) -> None:
    """Neither listens nor connects: none of its sockets is in the kernel's tables of TCP, UDP or raw sockets."""
    trainers.start(hospital)
    hospital.ask(hospital.study(), 1)
    own = f"/proc/{pid(hospital)}"
    links = {link for n in os.listdir(f"{own}/fd") if (link := target(f"{own}/fd/{n}"))}
    sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    tables = {name: inodes(Path(own, "net", name)) for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix")}
    trainers.stop(hospital)
    assert sockets & tables.pop("unix")
    assert {name: sockets & table for name, table in tables.items()} == {name: set() for name in tables}


def target(link: str) -> str:
    """Where it leads; empty if it was closed meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def inodes(path: Path) -> set[str]:
    column = 6 if path.name == "unix" else 9
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return {fields[column] for line in lines if len(fields := line.split()) > column}


def test_the_log_names_no_scan(hospital: Hospital, trainers: Trainers) -> None:
    hospital.configure(data=str(hospital.home / "DOE^JOHN"))
    trainers.start(hospital, "--log", "json")
    assert hospital.ask(hospital.study(), 0, "join").reply.name == COUNTS
    said = trainers.stop(hospital)["said"]
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["level"] for line in lines].count("error") == 1
    assert "E_DATA DataError" in said
    assert "DOE" not in said
    private = hospital.home / "trainer" / "errors.log"
    assert "DOE^JOHN" in private.read_text()


def test_one_trainer_per_site(hospital: Hospital, trainers: Trainers) -> None:
    trainers.start(hospital)
    second = Trainers()
    try:
        second.start(hospital)  # answered by the first one
        ended = second.ended()
    finally:
        second.close()
    assert ended["code"] == 1
    assert "is running already" in ended["said"]
    assert hospital.client.status().site == "oslo"
    assert trainers.stop(hospital)["code"] == 0


def test_a_site_that_has_not_joined(hospital: Hospital, tmp_path: Path) -> None:
    from client.trainer import run
    from common.errors import IdentityError

    private_folder(tmp_path / "new" / "trainer")
    with pytest.raises(IdentityError, match="fedscan site join"):
        run(tmp_path / "new")
