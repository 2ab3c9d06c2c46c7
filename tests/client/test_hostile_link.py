"""A link that was taken over: what it puts into the shared folder costs the trainer neither memory nor its keys."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from client.handover.control import Progress
from client.handover.files import REPLY, TASK, Ref, file_head

Hospital = Any
TERABYTE = 1 << 40


def peak_memory() -> int:
    """Bytes: the most that this process held since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_a_stored_reply_of_a_terabyte_is_not_read(hospital: Hospital) -> None:
    """It has the form of a reply, and a hole where its update should be; the trainer makes its own reply again."""
    study = hospital.study()
    with hospital.trainer():
        first = hospital.ask(study)
        path = hospital.mailbox.folder / REPLY
        good = path.read_bytes()
        front = file_head({"header": "{}", "metrics": "{}"}, {"float32": TERABYTE})
        path.write_bytes(front)
        os.truncate(path, len(front) + TERABYTE)
        peak_memory()
        held, start = peak_memory(), time.process_time()
        again = hospital.ask(study)
        assert time.process_time() - start < 30
        assert peak_memory() - held < 256 << 20
    assert again.state == first.state == "done"
    assert path.stat().st_size == pytest.approx(len(good), abs=100)


BOMBS = {
    "lists": b"[]," * 5_000_000,
    "objects": b"{}," * 5_000_000,
    "names": b"".join(b'"%d":0,' % n for n in range(1_000_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_whose_header_is_short_to_write_and_long_to_read_is_refused(hospital: Hospital, name: str) -> None:
    text = b'{"__metadata__":{"assignment":' + BOMBS[name]
    raw = len(text).to_bytes(8, "little") + text
    (hospital.mailbox.folder / TASK).write_bytes(raw)
    ref = hospital.mailbox.find(TASK)
    assert ref == Ref(name=TASK, nbytes=len(raw), digest=ref.digest)
    with hospital.trainer():
        peak_memory()
        held, start = peak_memory(), time.process_time()
        assert list(hospital.client.work(ref)) == [Progress(state="refused", code="E_WIRE")]
        assert time.process_time() - start < 3
        assert peak_memory() - held < 4 * len(raw)
        assert hospital.ask(hospital.study(), 0, "join").state == "done"


def test_an_assignment_that_is_short_to_write_and_long_to_read_is_refused(hospital: Hospital) -> None:
    """The same within the text that a coordinator sends: whoever made it need not have signed it."""
    ref = hospital.mailbox.put_task(b'{"study":[' + BOMBS["objects"][:9_000_000], {})
    with hospital.trainer():
        peak_memory()
        held = peak_memory()
        (last,) = hospital.client.work(ref)
        assert (last.state, last.code) in (("refused", "E_WIRE"), ("refused", "E_SIGNATURE"))
        assert peak_memory() - held < 8 * 9_000_000


def test_no_key_of_the_trainer_is_where_the_link_may_read(hospital: Hospital) -> None:
    with hospital.trainer():
        assert hospital.ask(hospital.study()).state == "done"
        key = (hospital.home / "trainer" / "reply-1.pem").read_text().splitlines()[1]
        for path in hospital.mailbox.folder.iterdir():
            assert path.is_socket() or key.encode() not in path.read_bytes()
    assert (hospital.home / "trainer").stat().st_mode & 0o077 == 0
    assert json.loads((hospital.home / "federation.json").read_text())["site"] == "oslo"
