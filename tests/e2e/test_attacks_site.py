"""A coordinator with the right certificate that lies: the site's link does nothing but its eight questions, and lives.

Between site and coordinator everything is real (TLS, gate, Flower's app); the lies are put into its answers.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PullObjectResponse, PushObjectRequest
from flwr.proto.message_pb2 import PushObjectResponse as Pushed
from flwr.proto.run_pb2 import GetRunResponse, Run

from client.handover.mailbox import Mailbox
from common import wire
from server.port.gate import ROUTES
from server.service.coordinator import ServerLink
from tests.e2e import hostile
from tests.e2e.hostile import Federation, Notes, Objects
from tests.e2e.site_home import ToyTrainer, assigned, running, serving

Lie = Callable[[bytes, bytes], bytes]  # request and true answer to what is sent instead
FLAT = {"float32": np.arange(20, dtype="float32")}


@dataclass
class Liar:
    """The coordinator's app with other answers to some questions.

    Attributes:
        lies: By route.
        asked: Every path that was asked for.
        pushed: Names of all objects that came.
    """

    app: Any
    lies: dict[str, Lie] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.asked.append(scope["path"])
        verb, request, answer = scope["path"].rpartition("/")[2], bytearray(), bytearray()
        held: list[Any] = []

        async def listening() -> Any:
            event = await receive()
            request.extend(event.get("body", b""))
            return event

        async def lying(event: Any) -> None:
            lie = self.lies.get(verb)
            if lie is None:
                await send(event)
            elif event["type"] == "http.response.start":
                held.append(event)
            else:
                answer.extend(event["body"])
                if not event.get("more_body"):
                    body = lie(bytes(request), bytes(answer))
                    headers = [(b"content-type", b"application/protobuf"), (b"content-length", b"%d" % len(body))]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    await send({"type": "http.response.body", "body": body})

        await self.app(scope, listening, lying)
        if verb == "push-object" and request:
            self.pushed.append(PushObjectRequest.FromString(bytes(request)).object_id)
        if verb == "push-messages" and request:
            self.announced = PushMessagesRequest.FromString(bytes(request))


@dataclass
class Place:
    link: ServerLink
    liar: Liar
    trainer: ToyTrainer
    notes: Notes
    home: Path
    thread: threading.Thread
    number: int = 0

    def send(self, message: Message | None = None) -> str:
        self.number += 1
        node = self.link.fleet.sites()["oslo"]
        (sent,) = self.link.grid.push_messages([message or assigned(node, f"task {self.number}", FLAT)])
        return sent

    def answer(self, sent: str, seconds: float = 60) -> Message:
        end = time.monotonic() + seconds
        while not (found := list(self.link.grid.pull_messages([sent]))):
            assert time.monotonic() < end, self.notes.text[-2000:]
            time.sleep(0.02)
        return found[0]

    def goes_on(self) -> bool:
        """Whether the link lives, has asked for nothing new, and does its next task."""
        self.liar.lies.clear()
        reply = self.answer(self.send())
        assert set(self.liar.asked) <= ROUTES
        return self.thread.is_alive() and np.array_equal(
            np.frombuffer(reply.content[wire.ARRAYS]["float32"].data, "<f4"), -FLAT["float32"]
        )

    def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.notes.text[-2000:]
            time.sleep(0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    federation = Federation(tmp_path_factory.mktemp("place"), "oslo")
    home = federation.folder / "oslo"
    trainer = ToyTrainer(Mailbox(home))
    lying: list[Liar] = []

    def liar(app: Any) -> Liar:
        lying.append(Liar(app))
        return lying[0]

    with hostile.noting() as notes, federation.serving(wrap=liar, rate=1000) as link, serving(trainer), running(home):
        thread = next(t for t in threading.enumerate() if t.name == "site-link")
        yield Place(link, lying[0], trainer, notes, home, thread)


# Objects of a task


def forged(place: Place, root: str, objects: Objects) -> None:
    """Offer objects of one's own as the task that waits."""

    def offer(request: bytes, answer: bytes) -> bytes:
        found = PullMessagesResponse.FromString(answer)
        if found.message_object_trees:
            tree = ObjectTree(object_id="f" * 64, children=[ObjectTree(object_id=root)])
            found.message_object_trees[0].CopyFrom(tree)
        return found.SerializeToString()

    def give(request: bytes, answer: bytes) -> bytes:
        asked = PullObjectRequest.FromString(request).object_id
        return PullObjectResponse(
            object_found=True, object_available=True, object_content=objects.made.get(asked, b"")
        ).SerializeToString()

    place.liar.lies.update({"pull-messages": offer, "pull-object": give})


def assignment(objects: Objects) -> str:
    return objects.raw(ConfigRecord({"assignment": b"forged"}).deflate())


def task(objects: Objects, array: str) -> str:
    arrays = objects.holder("ArrayRecord", {"float32": array})
    parts = {"assignment": assignment(objects), "arrays": arrays}
    return objects.holder("RecordDict", parts)


def a_thousand_chunks(o: Objects) -> str:
    return task(o, o.tensor(bytes(5 << 20), arraychunk_ids=[0] * 1000, shape=[1000 * (5 << 20) // 4]))


def another_length(o: Objects) -> str:
    return task(o, o.tensor(bytes(80), shape=[10]))


def a_record_for_a_chunk(o: Objects) -> str:
    records = o.add("RecordDict", [], b"x" * 40)
    about = {"dtype": "float32", "shape": [10], "stype": wire.STYPE, "arraychunk_ids": [0]}
    return task(o, o.add("Array", [records], json.dumps(about).encode()))


def many_parts(o: Objects) -> str:
    """14 MB that would be lists of half a gigabyte."""
    return task(o, o.add("Array", [], b'{"arraychunk_ids":[' + b"[]," * 4_500_000 + b"[]]}"))


def code(o: Objects) -> str:
    """An app, as Flower's coordinator sends one."""
    fab = Fab(hash_str="0" * 64, content=b"import pathlib; pathlib.Path('canary').touch()").SerializeToString()
    parts = {"assignment": assignment(o), "fab": o.raw(ConfigRecord({"fab": fab}).deflate())}
    return o.holder("RecordDict", parts)


def peak_memory() -> int:
    """Bytes: the most that this process held since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


FORGED: dict[str, Callable[[Objects], str]] = {
    "one chunk 1000 times": a_thousand_chunks,
    "a chunk of another length": another_length,
    "chunk -1": lambda o: task(o, o.tensor(bytes(40), arraychunk_ids=[-1])),
    "chunk True": lambda o: task(o, o.tensor(bytes(40), arraychunk_ids=[True])),
    "a record for a chunk": a_record_for_a_chunk,
    "a negative shape": lambda o: task(o, o.tensor(bytes(40), shape=[-10])),
    "10^30 elements": lambda o: task(o, o.tensor(bytes(40), shape=[10**30])),
    "deep JSON": lambda o: task(o, o.add("Array", [], b"[" * 2_000_000)),
    "many parts": many_parts,
    "not JSON": lambda o: task(o, o.add("Array", [], b"\x80\x04cos\nsystem\n")),
    "nothing in it": lambda o: o.holder("RecordDict", {}),
    "a message for its content": lambda o: o.add("Message", [assignment(o)], b""),
    "an unknown kind": lambda o: o.add("Popen", [], b"true"),
    "a child with a path": lambda o: o.holder("RecordDict", {"assignment": "../../link/node_key"}),
    "itself": lambda o: o.holder("RecordDict", {"assignment": o.holder("RecordDict", {})}),
    "no head": lambda o: o.raw(b"nothing"),
    "nothing": lambda o: o.raw(b""),
    "code": code,
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_task_is_refused(place: Place, name: str) -> None:
    objects = Objects()
    root = FORGED[name](objects)
    asked, before = len(place.trainer.asked), len(place.notes.records)
    start = time.process_time()
    peak_memory()
    held = peak_memory()
    forged(place, root, objects)
    place.send()
    place.until(lambda: "a task is refused" in place.notes.text_since(before))
    assert time.process_time() - start < 10
    # Both ends are in this process, and an object crosses in several copies.
    assert peak_memory() - held < len(objects.largest) * 8 + (32 << 20)
    assert len(place.trainer.asked) == asked
    assert not list(place.home.rglob("canary"))
    assert place.goes_on()


def other_bytes(request: bytes, answer: bytes) -> bytes:
    """The right form, with one bit of the object changed."""
    found = PullObjectResponse.FromString(answer)
    found.object_content = found.object_content[:-1] + bytes([found.object_content[-1] ^ 1])
    return found.SerializeToString()


@pytest.mark.parametrize("lie", [other_bytes, lambda r, a: PullObjectResponse().SerializeToString()],
                         ids=["another bit", "not there"])  # fmt: skip
def test_objects_that_are_not_what_they_are_called_are_not_used(place: Place, lie: Lie) -> None:
    asked, questions = len(place.trainer.asked), len(place.liar.asked)
    place.liar.lies["pull-object"] = lie
    place.send()
    place.until(lambda: place.liar.asked[questions:].count("/v1/fleet/pull-object") >= 1)
    assert len(place.trainer.asked) == asked
    assert place.goes_on()


# Answers to the other questions

LIES: dict[str, tuple[str, Lie]] = {
    "forgotten": ("send-node-heartbeat", lambda r, a: SendNodeHeartbeatResponse(success=False).SerializeToString()),
    "a tree without a message": ("pull-messages", lambda r, a: PullMessagesResponse(
        message_object_trees=[ObjectTree(object_id="0" * 64)]).SerializeToString()),
    "a name with a path": ("pull-messages", lambda r, a: PullMessagesResponse(
        messages_list=[{}], message_object_trees=[ObjectTree(object_id="../../link/tls-1.pem")]).SerializeToString()),
    "two contents": ("pull-messages", lambda r, a: PullMessagesResponse(messages_list=[{}], message_object_trees=[
        ObjectTree(object_id="0" * 64, children=[ObjectTree(object_id=c * 64) for c in "ab"])]).SerializeToString()),
    "a run with an app": ("pull-messages", lambda r, a: GetRunResponse(
        run=Run(run_id=1, fab_id="evil", fab_version="1", fab_hash="0" * 64)).SerializeToString()),
    "not stored": ("push-object", lambda r, a: Pushed(stored=False).SerializeToString()),
    "garbage for a confirmation": ("confirm-message-received", lambda r, a: b"\xff" * 9),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_an_answer_passes(place: Place, name: str) -> None:
    verb, lie = LIES[name]
    questions = len(place.liar.asked)
    place.liar.lies[verb] = lie
    place.send()
    place.until(lambda: place.liar.asked[questions:].count(f"/v1/fleet/{verb}") >= 1)
    assert place.goes_on()


def test_nothing_but_the_reply_s_own_objects_can_be_asked_for(place: Place) -> None:
    """A coordinator that asks for keys, or for the hash of a guess, gets neither."""
    wanted = ["../../trainer/reply-1.pem", "link/node_key", "0" * 64, ""]

    def ask(request: bytes, answer: bytes) -> bytes:
        found = PushMessagesResponse.FromString(answer)
        found.objects_to_push.extend(wanted)
        return found.SerializeToString()

    place.liar.pushed.clear()
    place.liar.lies["push-messages"] = ask
    place.answer(place.send())
    assert place.liar.pushed
    assert not set(place.liar.pushed) & set(wanted)
    assert place.goes_on()


def test_no_code_is_ever_asked_for(place: Place) -> None:
    """The coordinator has an app and a run to give; of the twelve routes of the Fleet API the site asks eight."""
    assert place.goes_on()
    assert set(place.liar.asked) <= ROUTES
    assert not {"/v1/fleet/get-fab", "/v1/fleet/get-run", "/v1/fleet/register-node"} & set(place.liar.asked)


def test_what_the_link_says_holds_no_key(place: Place) -> None:
    keys = [p.read_text() for p in (place.home / "link").iterdir() if "PRIVATE" in p.read_text()]
    assert len(keys) == 2
    secret = {line for text in keys for line in text.splitlines() if "---" not in line and line}
    said = place.notes.text + (place.home / "shared" / "link.json").read_text()
    assert not any(line in said for line in secret)
