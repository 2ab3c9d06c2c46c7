"""The shared folder: whole files or none, nothing taken on trust. The oracle of the format is safetensors itself."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from client.handover.files import COUNTS, REPLY, TASK, Ref
from client.handover.mailbox import Mailbox, read_reply
from common.errors import StorageError, WireError
from common.records import RecordError, read_record
from tests.client.conftest import put_reply

FLAT = {"float32": np.arange(7, dtype=np.float32) / 3, "int64": np.array([1, 2**40])}
RAW = {dtype: values.tobytes() for dtype, values in FLAT.items()}


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    found = Mailbox(tmp_path)
    found.make()
    return found


def ref_of(path: Path) -> Ref:
    raw = path.read_bytes()
    return Ref.model_validate({"name": path.name, "nbytes": len(raw), "digest": hashlib.sha256(raw).hexdigest()})


def test_what_is_written_is_safetensors(mailbox: Mailbox) -> None:
    text = json.dumps({"a": 'quotes "" and ü'}, ensure_ascii=False)
    ref = mailbox.put_task(text.encode(), FLAT)
    path = mailbox.folder / TASK
    assert ref == ref_of(path) == mailbox.find(TASK)
    assert {k: v.tobytes() for k, v in load_file(path).items()} == RAW
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"assignment": text}


def test_what_safetensors_writes_is_read(mailbox: Mailbox) -> None:
    path = mailbox.folder / TASK
    save_file(FLAT, path, metadata={"assignment": "x"})
    with mailbox.open(ref_of(path)) as opened:
        assert (opened.metadata, opened.sizes) == ({"assignment": "x"}, {"float32": 7, "int64": 2})
        assert opened.arrays() == RAW


@given(
    st.dictionaries(st.sampled_from(["float32", "int64"]), st.integers(0, 50)),
    st.text(st.characters(exclude_categories=["Cs"])),
)
@settings(max_examples=50, deadline=None)
def test_whatever_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, sizes: Any, text: str) -> None:
    mailbox = Mailbox(tmp_path_factory.getbasetemp() / "any")
    mailbox.make()
    arrays = {d: np.arange(n).astype(d).tobytes() for d, n in sizes.items()}
    with mailbox.open(mailbox.put_task(text.encode(), arrays)) as opened:
        assert opened.metadata == {"assignment": text}
        assert opened.arrays() == arrays


def test_replies(mailbox: Mailbox) -> None:
    metrics = {"num-examples": 3, "loss": 0.1 + 0.2, "seconds": 1e-9}
    update = read_reply(mailbox, put_reply(mailbox, b"{}", metrics, RAW))
    assert (update.header, update.metrics, update.arrays) == (b"{}", metrics, RAW)
    assert type((update.metrics or {})["num-examples"]) is int
    error = read_reply(mailbox, put_reply(mailbox, b"{}", None, {}, COUNTS))
    assert (error.metrics, error.arrays) == (None, {})
    assert {p.name for p in mailbox.folder.iterdir()} == {REPLY, COUNTS}


NAMES = [
    "../trainer/accepted.json", "/etc/passwd", "task.safetensors/../reply.safetensors", "./task.safetensors",
    "task.safetensors\0", "TASK.safetensors", ".task.safetensors.part", "trainer.sock", "link.json", "", "..",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_out_of_a_closed_list(name: str) -> None:
    text = json.dumps({"name": name, "nbytes": 1, "digest": "0" * 64}).encode()
    with pytest.raises(RecordError):
        read_record(Ref, text, 1000)
    with pytest.raises(ValidationError):
        Ref.model_validate({"name": name, "nbytes": 1, "digest": "0" * 64})


@pytest.mark.parametrize(
    "wrong",
    [{"nbytes": 0}, {"nbytes": -1}, {"nbytes": 2**60}, {"nbytes": 1.0}, {"nbytes": True}, {"digest": "0" * 63},
     {"digest": "G" * 64}, {"path": "x"}],
    ids=str,
)  # fmt: skip
def test_refs_of_another_form(wrong: Any) -> None:
    text = json.dumps({"name": TASK, "nbytes": 1, "digest": "0" * 64, **wrong}).encode()
    with pytest.raises(RecordError):
        read_record(Ref, text, 1000)


def refuses(mailbox: Mailbox, ref: Ref, match: str) -> None:
    with pytest.raises(WireError, match=match), mailbox.open(ref) as opened:
        opened.arrays()


def test_another_file_than_the_one_that_was_named(mailbox: Mailbox) -> None:
    ref = mailbox.put_task(b"x", FLAT)
    refuses(mailbox, ref.model_copy(update={"nbytes": ref.nbytes + 1}), "has .* bytes, named were")
    refuses(mailbox, ref.model_copy(update={"digest": "0" * 64}), "SHA-256")
    path = mailbox.folder / TASK
    whole = path.read_bytes()
    for place in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refuses(mailbox, ref, "SHA-256|header")
    path.write_bytes(whole[:-1])
    refuses(mailbox, ref, "bytes")
    path.unlink()
    refuses(mailbox, ref, "cannot be opened")
    assert mailbox.find(TASK) is None


def test_a_file_that_is_cut_while_it_is_read(mailbox: Mailbox) -> None:
    """The other process can do that at any time; a mapped file would end this one."""
    ref = mailbox.put_task(b"x", {"float32": np.zeros(1_000_000, np.float32)})
    with mailbox.open(ref) as opened:
        os.truncate(mailbox.folder / TASK, 5000)
        with pytest.raises(WireError, match="was cut"):
            opened.arrays()


def test_no_link_is_followed(mailbox: Mailbox, tmp_path: Path) -> None:
    ref = mailbox.put_task(b"x", FLAT)
    path = mailbox.folder / TASK
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refuses(mailbox, ref, "cannot be opened")
    assert mailbox.find(TASK) is None


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(mailbox: Mailbox, kind: str) -> None:
    path = mailbox.folder / TASK
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    thread = threading.Thread(target=refuses, args=(mailbox, Ref(name=TASK, nbytes=1, digest="0" * 64), "not a file"))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_what_is_written_goes_through_no_link(mailbox: Mailbox, tmp_path: Path) -> None:
    """Whoever may write in the folder must not choose what the other one writes over."""
    victim = tmp_path / "accepted.json"
    victim.write_text("kept")
    (mailbox.folder / f".{REPLY}.part").symlink_to(victim)
    (mailbox.folder / REPLY).symlink_to(victim)
    ref = put_reply(mailbox, b"{}", None, {})
    assert victim.read_text() == "kept"
    assert not (mailbox.folder / REPLY).is_symlink()
    assert read_reply(mailbox, ref).header == b"{}"


def test_a_full_disk_leaves_what_was_there(mailbox: Mailbox) -> None:
    first = mailbox.put_task(b"x", FLAT)
    (mailbox.folder / f".{TASK}.part").mkdir()
    with pytest.raises(StorageError):
        mailbox.put_task(b"y", FLAT)
    assert mailbox.find(TASK) == first


def framed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(dtype: str, shape: Any, offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a header longer than the file": framed(b"{}", length=100),
    "a header of 2^63 bytes": framed(b"{}", length=2**63),
    "no JSON": framed(b"nonsense"),
    "deep": framed(b"[" * 10_000),
    "a key twice": framed(b'{"__metadata__":{},"__metadata__":{}}'),
    "an unknown name": framed({"weights": tensor("F32", [1], [0, 4])}, bytes(4)),
    "another dtype": framed({"float32": tensor("F64", [1], [0, 8])}, bytes(8)),
    "int64 as float32": framed({"float32": tensor("I64", [1], [0, 8])}, bytes(8)),
    "two axes": framed({"float32": tensor("F32", [1, 1], [0, 4])}, bytes(4)),
    "a gap in front": framed({"float32": tensor("F32", [1], [4, 8])}, bytes(8)),
    "an overlap": framed({"float32": tensor("F32", [2], [0, 8]), "int64": tensor("I64", [1], [0, 8])}, bytes(8)),
    "bytes behind": framed({"float32": tensor("F32", [1], [0, 4])}, bytes(8)),
    "fewer bytes": framed({"float32": tensor("F32", [2], [0, 8])}, bytes(4)),
    "a shape that does not fit": framed({"float32": tensor("F32", [10**10], [0, 4])}, bytes(4)),
    "a negative shape": framed({"float32": tensor("F32", [-1], [0, -4])}),
    "offsets backwards": framed({"float32": tensor("F32", [1], [4, 0])}, bytes(4)),
    "a float as offset": framed({"float32": tensor("F32", [1], [0, 4.0])}, bytes(4)),
    "metadata that is no text": framed({"__metadata__": {"assignment": 1}}),
    "much metadata": framed({"__metadata__": {str(n): "" for n in range(9)}}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_files_of_another_form(mailbox: Mailbox, name: str) -> None:
    path = mailbox.folder / TASK
    path.write_bytes(HEADERS[name])
    ref = ref_of(path) if HEADERS[name] else Ref(name=TASK, nbytes=1, digest="0" * 64)
    refuses(mailbox, ref, "task.safetensors")


def test_an_oversized_task_is_refused_before_it_is_read(mailbox: Mailbox) -> None:
    """One terabyte that was declared and is not there (a file with a hole)."""
    path = mailbox.folder / TASK
    head = framed({"float32": tensor("F32", [2**38], [0, 2**40])})
    path.write_bytes(head)
    os.truncate(path, len(head) + 2**40)
    ref = Ref(name=TASK, nbytes=len(head) + 2**40, digest="0" * 64)
    with mailbox.open(ref) as opened:
        # The reader compares this with the study's schema and goes no further.
        assert opened.sizes == {"float32": 2**38}


@pytest.mark.parametrize(
    "texts",
    [{}, {"metrics": "{}"}, {"header": "{}", "more": ""}, {"header": "{}", "metrics": "[]"},
     {"header": "{}", "metrics": "nonsense"}, {"header": "{}", "metrics": '{"a":"b"}'},
     {"header": "{}", "metrics": '{"a":true}'}, {"header": "{}", "metrics": '{"a":NaN}'},
     {"header": "{}", "metrics": "[" * 5000}],
    ids=str,
)  # fmt: skip
def test_replies_of_another_form(mailbox: Mailbox, texts: dict[str, str]) -> None:
    path = mailbox.folder / REPLY
    path.write_bytes(framed({"__metadata__": texts}))
    with pytest.raises(WireError):
        read_reply(mailbox, ref_of(path))


def test_a_task_is_no_reply(mailbox: Mailbox) -> None:
    with pytest.raises(WireError, match="not a reply"):
        read_reply(mailbox, mailbox.put_task(b"x", {}))
