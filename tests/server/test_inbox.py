"""Replies on their way: what was announced, whole, once, within the task's allowance."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.port.inbox import Allowance, Inbox, Refused


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ROOT, PART = b"root", bytes(100_000)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    box = Inbox(tmp_path / "inbox")
    box.expect("task", Allowance(100_000))
    return box


@contextmanager
def refused(status: int, what: str) -> Iterator[None]:
    with pytest.raises(Refused, match=what) as found:
        yield
    assert found.value.status == status


def test_a_reply_is_whole_when_all_its_objects_are_there(inbox: Inbox, tmp_path: Path) -> None:
    upload = inbox.begin("task", name(ROOT), [name(PART), name(ROOT)])
    assert set(upload.missing) == {name(PART), name(ROOT)}
    inbox.put("task", upload.session, name(PART), PART)
    inbox.put("task", upload.session, name(PART), PART)  # again: no harm
    assert inbox.whole("task") is None
    # The connection broke: the same reply goes on where it stopped.
    again = inbox.begin("task", name(ROOT), [name(PART), name(ROOT)])
    assert again.missing == [name(ROOT)]
    inbox.put("task", again.session, name(ROOT), ROOT)
    whole = inbox.whole("task")
    assert whole is not None
    assert whole.path(name(PART)).read_bytes() == PART
    inbox.close("task")
    assert inbox.whole("task") is None
    assert list((tmp_path / "inbox").iterdir()) == []


def test_another_reply_of_the_site_replaces_the_first(inbox: Inbox) -> None:
    first = inbox.begin("task", name(ROOT), [name(ROOT)])
    second = inbox.begin("task", name(PART), [name(PART)])
    with refused(410, "over"):
        inbox.put("task", first.session, name(ROOT), ROOT)
    inbox.put("task", second.session, name(PART), PART)
    assert inbox.whole("task") is second


def test_what_was_not_announced_is_not_taken(inbox: Inbox) -> None:
    inbox.expect("other", Allowance(0))
    upload = inbox.begin("task", name(ROOT), [name(ROOT)])
    with refused(403, "not announced"):
        inbox.put("task", upload.session, name(PART), PART)
    with refused(400, "not what its name says"):
        inbox.put("task", upload.session, name(ROOT), b"other")
    with refused(410, "over"):
        inbox.put("other", upload.session, name(ROOT), ROOT)
    with refused(410, "not open"):
        inbox.begin("closed", name(ROOT), [name(ROOT)])
    with refused(409, "other objects"):
        inbox.begin("task", name(ROOT), [name(ROOT), name(PART)])


@pytest.mark.parametrize("bad", ["../../escape", "0" * 63, "0x" + "0" * 62, "A" * 64, ""])
def test_names_are_hashes(inbox: Inbox, bad: str) -> None:
    with refused(400, "hashes"):
        inbox.begin("task", bad, [bad])
    with refused(400, "hashes"):
        inbox.begin("task", name(ROOT), [name(ROOT), bad])
    with refused(400, "hashes"):
        inbox.begin("task", name(ROOT), [name(PART)])


def test_the_allowance_holds_for_one_reply_and_over_all_of_them(inbox: Inbox, tmp_path: Path) -> None:
    with refused(413, "objects"):
        inbox.begin("task", name(ROOT), [name(ROOT), *(f"{i:064x}" for i in range(100))])
    large = bytes(200_000)
    upload = inbox.begin("task", name(large), [name(large)])
    with refused(413, "bytes"):
        inbox.put("task", upload.session, name(large), large)
    sent = 0
    with refused(413, "times"):
        for i in range(100):
            content = bytes(100_000) + bytes([i])
            upload = inbox.begin("task", name(content), [name(content)])
            inbox.put("task", upload.session, name(content), content)
            sent += len(content)
    assert sent <= 3 * Allowance(100_000).nbytes
    inbox.close("task")
    inbox.expect("task", Allowance(100_000))
    with refused(413, "too many different"):
        for i in range(100):
            inbox.begin("task", f"{i:064x}", [f"{i:064x}"])


def test_what_an_earlier_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "inbox" / "old").mkdir(parents=True)
    Inbox(tmp_path / "inbox")
    assert list((tmp_path / "inbox").iterdir()) == []
