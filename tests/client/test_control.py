"""Link and trainer on a real socket: how work is told, and what the link sees when the trainer is not well."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.handover.control import Progress, TrainerBusyError, TrainerClient, TrainerGoneError, TrainerStatus, serve
from client.handover.files import REPLY, TASK, Ref
from common.errors import DataError

REF = Ref(name=TASK, nbytes=10, digest="1" * 64)
DONE = Progress(state="done", done=2, of=2, reply=Ref(name=REPLY, nbytes=5, digest="2" * 64))
STATUS = TrainerStatus(
    version="0.1.0", site="oslo", device="cpu", study="s", digest="3" * 64, run="r", round=1, kind="train", done=1,
    of=2, since=datetime(2030, 1, 1, tzinfo=UTC), last_code="E_DATA",
)  # fmt: skip


class Scripted:
    """A service that says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Ref] = []
        self.messages: list[Progress | Exception | threading.Event] = []

    def work(self, ref: Ref) -> Iterator[Progress]:
        self.asked.append(ref)
        for message in self.messages:
            if isinstance(message, Exception):
                raise message
            if isinstance(message, threading.Event):
                message.wait(30)
            else:
                yield message

    def status(self) -> TrainerStatus:
        return STATUS


@pytest.fixture
def service() -> Scripted:
    return Scripted()


@pytest.fixture
def client(tmp_path: Path, service: Scripted) -> Iterator[TrainerClient]:
    with serve(tmp_path / "s.sock", service):
        yield TrainerClient(tmp_path / "s.sock", silence=0.5)


def test_work_and_status(client: TrainerClient, service: Scripted) -> None:
    service.messages = [Progress(state="working", done=1, of=2), DONE, Progress(state="working")]
    assert list(client.work(REF)) == service.messages[:2]
    assert service.asked == [REF]
    assert client.status() == STATUS


def test_another_task_is_worked_on(client: TrainerClient, service: Scripted) -> None:
    service.messages = [TrainerBusyError("no")]
    with pytest.raises(TrainerBusyError):
        list(client.work(REF))


def test_the_answer_ends_in_the_middle(client: TrainerClient, service: Scripted) -> None:
    service.messages = [Progress(state="working")]
    with pytest.raises(TrainerGoneError, match="in the middle"):
        list(client.work(REF))


def test_no_text_of_an_error_reaches_the_link(client: TrainerClient, service: Scripted) -> None:
    service.messages = [DataError("/data/DOE^JOHN is damaged"), DONE]
    with pytest.raises(TrainerBusyError) as caught:
        list(client.work(REF))
    assert "DOE" not in str(caught.value)


def test_an_unexpected_error_names_no_scan(client: TrainerClient, service: Scripted) -> None:
    service.messages = [OSError(2, "no such file", "/data/DOE^JOHN")]
    with pytest.raises(TrainerGoneError) as caught:
        list(client.work(REF))
    assert "DOE" not in str(caught.value)


def test_a_trainer_that_hangs_is_given_up(client: TrainerClient, service: Scripted) -> None:
    stuck = threading.Event()
    service.messages = [Progress(state="working"), stuck, DONE]
    messages = client.work(REF)
    next(messages)
    with pytest.raises(TrainerGoneError):
        next(messages)
    stuck.set()


def test_a_slow_reader_is_not_taken_for_a_hung_trainer(client: TrainerClient, service: Scripted) -> None:
    """Only silence counts while something is waited for; this reader did not look for longer than that."""
    service.messages = [Progress(state="working"), DONE]
    messages = client.work(REF)
    next(messages)
    time.sleep(1.2)
    assert next(messages) == DONE


def test_closing_the_answer_ends_the_call(client: TrainerClient, service: Scripted) -> None:
    service.messages = [Progress(state="working")] * 3
    messages = client.work(REF)
    next(messages)
    messages.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer)]


def test_the_trainer_dies(tmp_path: Path, service: Scripted) -> None:
    stuck = threading.Event()
    service.messages = [Progress(state="working"), stuck]
    client = TrainerClient(tmp_path / "s.sock")
    with serve(tmp_path / "s.sock", service):
        messages = client.work(REF)
        next(messages)
        threading.Timer(0.2, stuck.set).start()
    with pytest.raises(TrainerGoneError):
        list(messages)
    with pytest.raises(TrainerGoneError, match="fedscan site trainer"):
        client.status()
