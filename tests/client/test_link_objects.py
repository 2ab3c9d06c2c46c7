"""A task's and a reply's objects, held against Flower's own classes; downloads that start in the middle of a mess."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from safetensors.numpy import load_file

from client.handover.mailbox import Mailbox
from client.network import fleet
from client.network.download import Layout, fetch, read_layout
from client.network.fleet import Fleet
from client.network.objects import (
    CHUNK,
    MAX_ARRAYS,
    Flat,
    Thing,
    flat_thing,
    head,
    name_of,
    read_flat,
    read_thing,
    references,
)
from client.network.things import Offer, error_thing, reply_thing
from client.network.upload import Reply
from common import wire
from common.errors import ERROR_CODES, StorageError, WireError
from tests.client.conftest import put_reply

N = CHUNK // 4 * 2 + 5  # two chunks and a little
Objects = dict[str, bytes]


def flat(seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"float32": rng.standard_normal(n, np.float32), "int64": rng.integers(0, 9, 7)}


def objects_of(content: RecordDict) -> Objects:
    """Flower's own names and bytes."""
    return {name: thing.deflate() for name, thing in get_all_nested_objects(content).items()}


def task(arrays: dict[str, np.ndarray] | None, assignment: bytes = b"assigned") -> tuple[str, Objects]:
    content = RecordDict({wire.ASSIGNMENT: ConfigRecord({"assignment": assignment})})
    if arrays is not None:
        content[wire.ARRAYS] = wire.record(arrays)
    return content.object_id, objects_of(content)


class Store:
    """Gives objects, and notes which chunks were asked for."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.chunks: list[str] = []

    def __call__(self, name: str, small: bool) -> memoryview:
        if not small:
            self.chunks.append(name)
        return memoryview(self.objects[name])


def got(mailbox: Mailbox) -> dict[str, np.ndarray]:
    """Read by the safetensors library."""
    return load_file(mailbox.folder / "task.safetensors")


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    made = Mailbox(tmp_path)
    made.make()
    return made


def down(mailbox: Mailbox, content: str, store: Store, known: dict[str, int] | None = None) -> Any:
    return fetch(store, read_layout(store, content), mailbox, known or {})


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[d], other[d]) for d in one)


# Down


def test_a_task_becomes_the_file_that_the_mailbox_reads(mailbox) -> None:
    content, objects = task(flat())
    fetched = down(mailbox, content, Store(objects))
    assert same(got(mailbox), flat())
    with mailbox.open(fetched.ref) as opened:  # size and SHA-256 are compared here
        assert opened.metadata == {"assignment": "assigned"}
        assert {d: np.frombuffer(raw, d).size for d, raw in opened.arrays().items()} == {"float32": N, "int64": 7}
    assert os.stat(mailbox.folder / "task.safetensors").st_mode & 0o777 == 0o640


def test_a_broken_download_goes_on_after_its_last_whole_chunk(mailbox) -> None:
    content, objects = task(flat())
    store = Store(objects)
    layout = read_layout(store, content)
    last = layout.flats[-1].chunks[-1]
    kept = store.objects.pop(last)
    with pytest.raises(KeyError):
        fetch(store, layout, mailbox, {})
    assert not (mailbox.folder / "task.safetensors").exists()
    store.objects[last] = kept
    store.chunks.clear()
    fetch(store, layout, mailbox, {})
    assert store.chunks == [last]
    assert same(got(mailbox), flat())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda part: os.truncate(part, CHUNK + 1000),
        lambda part: part.write_bytes(part.read_bytes()[:-CHUNK] + b"?" * CHUNK),
        lambda part: part.write_bytes(b"?" * (4 * CHUNK)),
        lambda part: part.write_bytes(b""),
        lambda part: (part.unlink(), part.symlink_to("/etc/hostname")),
        lambda part: (part.unlink(), os.mkfifo(part)),
        lambda part: os.link(part, part.with_name("also")),
    ],
    ids=["cut", "changed", "longer", "empty", "link", "pipe", "two names"],
)
def test_whatever_lies_where_the_download_goes_on(mailbox, spoil: Callable[[Path], Any]) -> None:
    content, objects = task(flat())
    store = Store(dict(objects))
    layout = read_layout(store, content)
    last = layout.flats[-1].chunks[-1]
    del store.objects[last]
    with pytest.raises(KeyError):
        fetch(store, layout, mailbox, {})
    spoil(mailbox.folder / ".task.safetensors.part")
    store.objects = objects
    fetched = fetch(store, layout, mailbox, {})
    assert same(got(mailbox), flat())
    assert mailbox.find("task.safetensors") == fetched.ref


def test_chunks_of_the_task_before_are_taken_from_its_file_unless_it_was_changed(mailbox) -> None:
    first, objects = task(flat(), b"one")
    places = down(mailbox, first, Store(objects)).places
    second, objects = task(flat(), b"two")
    store = Store(objects)
    places = down(mailbox, second, store, places).places
    assert store.chunks == []
    path = mailbox.folder / "task.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    third, objects = task(flat(), b"three")
    store = Store(objects)
    down(mailbox, third, store, places)
    assert len(store.chunks) == 1
    assert same(got(mailbox), flat())


def test_a_chunk_that_is_not_what_its_name_or_place_says_is_refused(mailbox) -> None:
    content, objects = task({"float32": np.ones(10, "float32")})
    layout = read_layout(Store(objects), content)
    (chunk,) = layout.flats[0].chunks
    with pytest.raises(WireError, match="what its name says"):
        fetch(Store({**objects, chunk: objects[chunk][:-1] + b"!"}), layout, mailbox, {})


@pytest.mark.parametrize(
    "wrong", [head("ArrayChunk", (), 36) + b"\0" * 36, head("Array", (), 40) + b"\0" * 40, b"", b"\0" * 60]
)
def test_an_honestly_named_object_that_is_no_such_chunk_is_refused(mailbox, wrong: bytes) -> None:
    layout = Layout(b"x", (Flat("float32", 10, (name_of(wrong),)),))
    with pytest.raises(WireError, match="as long as"):
        fetch(Store({name_of(wrong): wrong}), layout, mailbox, {})


def test_a_full_disk_is_told_before_the_task_is_fetched(mailbox, monkeypatch) -> None:
    content, objects = task(flat())
    monkeypatch.setattr("client.network.download._SPARE", 1 << 60)
    store = Store(objects)
    with pytest.raises(StorageError, match="make room"):
        down(mailbox, content, store)
    assert store.chunks == []


def test_one_chunk_named_a_thousand_times_is_refused() -> None:
    about = {"dtype": "float32", "shape": [CHUNK // 4 * 1000], "stype": "fedscan.flat", "arraychunk_ids": [0] * 1000}
    with pytest.raises(WireError, match=f"at most {MAX_ARRAYS}"):
        read_flat(Thing("Array", ("a" * 64,), json.dumps(about).encode()), "float32")


@pytest.mark.parametrize("order", [[], [0, 0], [1], [-1], [True], [0.0], "0", None, [0] * 10**6])
def test_chunks_that_do_not_make_the_declared_size_are_refused(order: Any) -> None:
    about = {"dtype": "float32", "shape": [10], "stype": "fedscan.flat", "arraychunk_ids": order}
    with pytest.raises(WireError):
        read_flat(Thing("Array", ("a" * 64,), json.dumps(about).encode()), "float32")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"RecordDict", b"RecordDict  2\0{}", b"RecordDict a 2\0{}", b"RecordDict  3\0{}",
        b"Message  2\0{}", b"RecordDict  2\0[]", b"RecordDict  " + b"9" * 5000 + b"\0{}", b"RecordDict  2 2\0{}",
        b"RecordDict  19\0" + b'{"assignment": null}', b"RecordDict  20000\0" + b"[" * 20000,
        b'RecordDict  13\0{"other": "a"}',
    ],
)  # fmt: skip
def test_a_task_that_is_none_is_refused(content: bytes) -> None:
    store = Store({name_of(content): content})
    with pytest.raises(WireError):
        read_layout(store, name_of(content))


# Up


def test_a_reply_has_the_names_that_flower_gives_it(mailbox) -> None:
    metrics = {"loss": 0.5, "num-examples": 10}
    arrays = flat(1)
    ref = put_reply(mailbox, b"signed", metrics, {d: a.tobytes() for d, a in arrays.items()})
    # In the file's order of dtypes.
    record = ArrayRecord({d: wire.record(arrays)[d] for d in ("int64", "float32")})
    expected = RecordDict(
        {"header": ConfigRecord({"header": b"signed"}), "metrics": MetricRecord(metrics), "arrays": record}
    )
    with Reply(mailbox, ref) as reply:
        assert name_of(reply.content.content()) == expected.object_id
        sent = {name: b"".join(reply.pieces(name)) for name in reply.names}
    assert sent == objects_of(expected)


def test_a_reply_that_was_changed_is_not_sent(mailbox) -> None:
    ref = put_reply(mailbox, b"signed", None, {"float32": b"\0" * 40})
    path = mailbox.folder / ref.name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WireError, match="SHA-256"):
        Reply(mailbox, ref)


def offer() -> Offer:
    asked = Message(RecordDict(), dst_node_id=5, message_type="train", ttl=600, group_id="run/1")
    wire.stamp(asked)
    metadata = message_to_proto(remove_content_from_message(asked)).metadata
    return Offer("a" * 64, "b" * 64, metadata)


def test_flower_reads_replies_and_errors() -> None:
    wire.become(7, 1)
    content = RecordDict({"header": ConfigRecord({"header": b"signed"})})
    thing = reply_thing(offer(), 5, Thing("RecordDict", *_parts(content)))
    read = Message.inflate(thing.content(), {content.object_id: content})
    assert read.metadata.reply_to_message_id == "a" * 64
    assert read.metadata.src_node_id == 5
    assert (read.metadata.group_id, read.metadata.message_type) == ("run/1", "train")
    for code in ERROR_CODES:
        assert Message.inflate(error_thing(offer(), 5, code).content()).error.reason == code
    assert Message.inflate(error_thing(offer(), 5, "/data/DOE^JOHN").content()).error.reason == "E_FEDSCAN"
    # The same whenever it is sent, or a broken upload would begin anew.
    one = offer()
    assert error_thing(one, 5, "E_DATA") == error_thing(one, 5, "E_DATA")


def _parts(content: RecordDict) -> tuple[tuple[str, ...], bytes]:
    thing = read_thing(content.object_id, memoryview(content.deflate()), "RecordDict")
    return thing.children, thing.body


def test_arrays_are_put_together_as_flower_does() -> None:
    values = np.zeros(N, "float32")  # equal chunks
    array = Array("float32", (N,), "fedscan.flat", values.tobytes())
    thing = read_thing(array.object_id, memoryview(array.deflate()), "Array")
    assert flat_thing(read_flat(thing, "float32")).content() == array.deflate()
    record = ArrayRecord({"float32": array})
    named = references(read_thing(record.object_id, memoryview(record.deflate()), "ArrayRecord"), ("float32",))
    assert named == {"float32": array.object_id}


@pytest.mark.parametrize("n", [0, 1, 127, 128, 16383, 16384, 5 << 20])
def test_protobuf_by_hand_is_protobuf(n: int) -> None:
    data = bytes(n % 251 for n in range(n))
    answer = message_pb2.PullObjectResponse(object_found=True, object_available=True, object_content=data)
    raw = memoryview(answer.SerializeToString())
    found = fleet._content(raw)
    assert found == data if n else found is None  # an empty field does not cross at all
    front = message_pb2.PushObjectRequest(run_id=3, object_id="x").SerializeToString()
    pushed = message_pb2.PushObjectRequest.FromString(front + b"\x22" + fleet._varint(n) + data)
    assert (pushed.run_id, pushed.object_id, pushed.object_content) == (3, "x", data)


@pytest.mark.parametrize("end", [b"", b"\x1a", b"\x1a\xff\xff\xff\xff\xff\xff", b"\x1a\x05abcd", b"\x1a\x03abcd"])
def test_an_answer_of_another_form_is_left_to_protobuf(end: bytes) -> None:
    assert fleet._content(memoryview(b"\x08\x01\x10\x01" + end)) is None
    assert fleet._content(memoryview(b"\x08\x01" + end)) is None


# What is Flower's

FIELDS = {
    fleet_pb2.ActivateNodeRequest: "public_key heartbeat_interval",
    fleet_pb2.ActivateNodeResponse: "node_id",
    fleet_pb2.DeactivateNodeRequest: "node_id",
    fleet_pb2.PullMessagesRequest: "node message_ids",
    fleet_pb2.PullMessagesResponse: "reconnect messages_list message_object_trees",
    fleet_pb2.PushMessagesRequest: "node messages_list message_object_trees clientapp_runtime_list",
    fleet_pb2.PushMessagesResponse: "reconnect results objects_to_push session_id",
    heartbeat_pb2.SendNodeHeartbeatRequest: "node heartbeat_interval",
    heartbeat_pb2.SendNodeHeartbeatResponse: "success",
    message_pb2.ConfirmMessageReceivedRequest: "node run_id message_object_id",
    message_pb2.PullObjectRequest: "node run_id object_id",
    message_pb2.PullObjectResponse: "object_found object_available object_content",
    message_pb2.PushObjectRequest: "node run_id object_id object_content session_id",
    message_pb2.PushObjectResponse: "stored",
    message_pb2.Metadata: (
        "run_id message_id src_node_id dst_node_id reply_to_message_id group_id ttl message_type created_at "
        "src_task_id dst_task_id"
    ),
}


def test_what_the_link_repeats_of_flower_is_still_so(tmp_path) -> None:
    for message, fields in FIELDS.items():
        assert [f.name for f in message.DESCRIPTOR.fields] == fields.split(), message.DESCRIPTOR.name
    numbers = message_pb2.PullObjectResponse.DESCRIPTOR.fields_by_name["object_content"].number
    assert (numbers, message_pb2.PushObjectRequest.DESCRIPTOR.fields_by_name["object_content"].number) == (3, 4)
    assert FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE == CHUNK
    assert fleet.MEDIA == PROTOBUF_MEDIA_TYPE
    expected = RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()
    assert Fleet(tmp_path)._versions == dict(expected)
    names = (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER)
    assert names == ("flwr-public-key", "flwr-signature", "flwr-timestamp")
