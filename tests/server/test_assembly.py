"""Uploaded objects become a message, or nothing at all: hostile ones are refused before they cost memory."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from common import wire
from common.errors import WireError
from server.port.assembly import SMALL, assemble
from server.port.inbox import Allowance, Upload

MEGABYTE = 1 << 20


class Objects:
    """Objects in Flower's form, made by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, bytes] = {}

    def add(self, kind: str, children: list[str], body: bytes, length: int | None = None) -> str:
        head = f"{kind} {','.join(children)} {len(body) if length is None else length}".encode()
        content = head + b"\0" + body
        name = hashlib.sha256(content).hexdigest()
        self.made[name] = content
        return name

    def tensor(self, chunks: list[bytes], order: list[object], **changes: object) -> str:
        ids = [self.add("ArrayChunk", [], c) for c in chunks]
        about = {"dtype": "float32", "shape": [1], "stype": wire.STYPE, "arraychunk_ids": order} | changes
        return self.add("Array", list(dict.fromkeys(ids)), json.dumps(about).encode())

    def reply(self, array: str) -> str:
        arrays = self.add("ArrayRecord", [array], json.dumps({"float32": array}).encode())
        records = self.add("RecordDict", [arrays], json.dumps({"arrays": arrays}).encode())
        return self.message([records])

    def message(self, children: list[str]) -> str:
        """A message whose metadata are Flower's own."""
        wire.become(1, 1)
        real = Message(RecordDict(), dst_node_id=2, message_type="train").deflate()
        return self.add("Message", children, real.partition(b"\0")[2])

    def upload(self, root: str) -> Upload:
        upload = Upload(root, frozenset(self.made), self.folder)
        for name, content in self.made.items():
            upload.path(name).write_bytes(content)
            upload.sizes[name] = len(content)
        return upload


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path)


def of_flower(objects: Objects, message: Message) -> Upload:
    objects.made = {name: made.deflate() for name, made in get_all_nested_objects(message).items()}
    return objects.upload(message.object_id)


def test_what_flower_takes_apart_comes_back_whole(objects: Objects) -> None:
    wire.become(1, 1)
    rng = np.random.default_rng(0)
    # More than two of Flower's chunks of 5 MiB, two of them equal, and a second dtype.
    half = rng.standard_normal(5 * MEGABYTE // 4).astype("float32")
    flat = {"float32": np.concatenate([half, half, half[:7]]), "int64": np.arange(3)}
    content = RecordDict(
        {
            "arrays": wire.record(flat),
            "metrics": MetricRecord({"loss": 0.5, "num-examples": 3}),
            "task": ConfigRecord({"site": "oslo"}),
        }
    )
    upload = of_flower(objects, Message(content, dst_node_id=2, message_type="train"))
    tensors = sum(v.nbytes for v in flat.values())
    with pytest.raises(WireError, match="allows"):
        assemble(upload, Allowance(tensors - 1))
    got = assemble(upload, Allowance(tensors)).content
    for dtype, values in flat.items():
        array = got["arrays"][dtype]
        assert np.array_equal(np.frombuffer(array.data, values.dtype), values)
        assert (array.dtype, array.shape, array.stype) == (dtype, values.shape, wire.STYPE)
    assert dict(got["metrics"]) == dict(content["metrics"])
    assert dict(got["task"]) == dict(content["task"])


def test_an_error_comes_back(objects: Objects) -> None:
    wire.become(1, 1)
    asked = Message(RecordDict(), dst_node_id=2, message_type="train")
    upload = of_flower(objects, Message(Error(7, "E_DATA"), reply_to=asked))
    assert assemble(upload, Allowance(0)).error.reason == "E_DATA"


CHUNK = bytes(MEGABYTE)


def _one_chunk_a_thousand_times(o: Objects) -> str:
    return o.reply(o.tensor([CHUNK], [0] * 1000))


def _empty_chunks_without_end(o: Objects) -> str:
    return o.reply(o.tensor([b""], [0] * 10_000))


def _ten_gigabytes_without_data(o: Objects) -> str:
    # Said, but not there: nothing is made for it, and the schema refuses the form later.
    return o.reply(o.tensor([CHUNK[:-1] * 11], [0], shape=[10 * 2**30 // 4]))


def _deep_body(o: Objects) -> str:
    array = o.add("Array", [], b'{"arraychunk_ids":' + b"[" * 60_000)
    return o.reply(array)


def _nested(o: Objects) -> str:
    inner = o.add("RecordDict", [], b"{}")
    for _ in range(50):
        inner = o.add("RecordDict", [inner], json.dumps({"x": inner}).encode())
    return o.message([inner])


HOSTILE: dict[str, Callable[[Objects], str]] = {
    "one chunk named 1000 times": _one_chunk_a_thousand_times,
    "an empty chunk named 10000 times": _empty_chunks_without_end,
    "10 GB declared, 11 MB sent": _ten_gigabytes_without_data,
    "a chunk that is not there": lambda o: o.reply(o.tensor([CHUNK], [1])),
    "chunk -1": lambda o: o.reply(o.tensor([CHUNK], [-1])),
    "chunk True": lambda o: o.reply(o.tensor([CHUNK], [True])),
    "chunk by name": lambda o: o.reply(o.tensor([CHUNK], ["0"])),
    "chunks no list": lambda o: o.reply(o.tensor([CHUNK], None)),  # type: ignore[arg-type]
    "a tensor of records": lambda o: o.reply(
        o.add("Array", [o.add("RecordDict", [], b"{}")], b'{"arraychunk_ids": [0]}')
    ),
    "body not JSON": lambda o: o.reply(o.add("Array", [], b"\xff")),
    "deep JSON": _deep_body,
    "records in records": _nested,
    "one chunk named 30 times": lambda o: o.reply(o.tensor([CHUNK], [0] * 30)),
    "a large small object": lambda o: o.add("Message", [], bytes(SMALL)),
    "no head": lambda o: _raw(o, b"nothing"),
    "odd head": lambda o: _raw(o, b"Message \0"),
    "not ASCII": lambda o: _raw(o, b"\xc3\xa9 x 1\0"),
    "unknown kind": lambda o: o.add("Popen", [], b""),
    "no message": lambda o: o.add("RecordDict", [], b"{}"),
    "a child that was not sent": lambda o: o.message(["0" * 64]),
    "a child named ../": lambda o: o.message(["../../../etc/passwd"]),
    "metrics no protobuf": lambda o: o.message(
        [o.add("RecordDict", [m := o.add("MetricRecord", [], b"\xff" * 9)], json.dumps({"m": m}).encode())]
    ),
    "message no protobuf": lambda o: o.add("Message", [], b"\xff\xff"),
    "an object beside": lambda o: o.reply(o.tensor([CHUNK], [0])) if o.add("ArrayChunk", [], b"") else "",
}  # fmt: skip


def _raw(objects: Objects, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    objects.made[name] = content
    return name


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_objects_are_refused_at_once(objects: Objects, make: Callable[[Objects], str]) -> None:
    upload = objects.upload(make(objects))
    start = time.process_time()
    with pytest.raises(WireError):
        assemble(upload, Allowance(10 * MEGABYTE))
    assert time.process_time() - start < 0.5


def test_a_false_form_keeps_its_few_bytes(objects: Objects) -> None:
    """10 GB that are only said cost nothing; the schema's check sees that form and bytes do not fit."""
    upload = objects.upload(objects.reply(objects.tensor([b"1234"], [0], shape=[10 * 2**30 // 4])))
    assert len(assemble(upload, Allowance(MEGABYTE)).content["arrays"]["float32"].data) == 4


def test_one_tensor_under_many_names_is_made_once(objects: Objects) -> None:
    array = objects.tensor([CHUNK], [0])
    ids = [
        objects.add("ArrayRecord", [array], json.dumps({f"{i}-{j}": array for j in range(100)}).encode())
        for i in range(40)
    ]
    records = objects.add("RecordDict", ids, json.dumps({i: i for i in ids}).encode())
    upload = objects.upload(objects.message([records]))
    content = assemble(upload, Allowance(10 * MEGABYTE)).content
    assert len({id(array.data) for record in content.values() for array in record.values()}) == 1
