"""A site's folder as `site init` and `site join` leave it, and a trainer that answers without any scans."""

import base64
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict

from client.handover.control import Progress, TrainerStatus, serve
from client.handover.files import REPLY, Ref
from client.handover.mailbox import Mailbox
from client.identity import Federation, Identity
from client.link import Link
from client.site import Network
from common import wire
from common.disk import write_whole
from common.keys import openssh

NOISE = threading.local()


def make_home(folder: Path, keys: Any, authority: Path, host: str, port: int) -> Path:
    """The folder of the site that holds `keys` (of the fixture `world`)."""
    identity = Identity(folder)
    for name in ("link", "certificates"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    identity.node_key_path.write_bytes(openssh(keys.node))
    identity.node_key_path.chmod(0o600)
    join_again(folder, keys, authority, host, port)
    return folder


def join_again(folder: Path, keys: Any, authority: Path, host: str, port: int, generation: int = 1) -> None:
    """What `site join` does: files beside the old ones, then federation.json in one step."""
    identity = Identity(folder)
    shutil.copy(keys.secret, identity.tls_key_path(generation))
    identity.tls_key_path(generation).chmod(0o600)
    ca = hashlib.sha256(authority.read_bytes()).hexdigest()
    shutil.copy(keys.certificate, identity.certificate_path(keys.sha256))
    shutil.copy(authority, identity.authority_path(ca))
    signer = Ed25519PrivateKey.generate().public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)
    now = Federation(
        site=keys.name, host=host, port=port, signing_key=base64.b64encode(signer).decode(), certificate=keys.sha256,
        authority=ca, generation=generation,
    )  # fmt: skip
    write_whole(folder / "federation.json", lambda part: part.write_bytes(now.canonical()))


def assigned(node: int, name: str, flat: Mapping[str, np.ndarray] | None = None) -> Message:
    """A task with the form that crosses; `name` stands for its signed assignment."""
    content = RecordDict({wire.ASSIGNMENT: ConfigRecord({"assignment": name.encode()})})
    if flat is not None:
        content[wire.ARRAYS] = wire.record(flat)
    return Message(content, dst_node_id=node, message_type="train", ttl=3600, group_id=name)


class ToyTrainer:
    """Negates the weights; the real service, the real mailbox.

    Args:
        mailbox: Of the site.
        work: Called before a task is answered, with the assignment; its word, if any, is the code of a refusal.
    """

    def __init__(self, mailbox: Mailbox, work: Callable[[str], str | None] = lambda _: None) -> None:
        self.mailbox = mailbox
        self.work_on = work
        self.asked: list[str] = []
        self.trained: list[str] = []
        self._replies: dict[str, Ref] = {}

    def work(self, ref: Ref) -> Iterator[Progress]:
        with self.mailbox.open(ref) as task:
            name, arrays = task.metadata["assignment"], task.arrays()
        self.asked.append(name)
        yield Progress(state="working", done=0, of=1)
        if name not in self._replies:
            code = self.work_on(name)
            if code is not None:
                yield Progress(state="refused", code=code)
                return
            self.trained.append(name)
            update = {d: -np.frombuffer(raw, np.dtype(d)) for d, raw in arrays.items()}
            metrics = {"num-examples": 7, "loss": 0.25}
            self._replies = {name: self.mailbox.hold_reply(f"header of {name}".encode(), metrics, update)}
            self.mailbox.release(REPLY)
        yield Progress(state="done", done=1, of=1, reply=self._replies[name])

    def status(self) -> TrainerStatus:
        return TrainerStatus(version="1", device="cpu")


@contextmanager
def serving(trainer: ToyTrainer) -> Iterator[ToyTrainer]:
    """The trainer's service on its socket."""
    trainer.mailbox.make()
    with serve(trainer.mailbox.socket, trainer):
        yield trainer


@contextmanager
def running(home: Path, network: Network | None = None, clock: Any = None) -> Iterator[Link]:
    """The link of a home, on a thread."""
    link = Link(home, network, clock)
    thread = threading.Thread(target=link.run, name="site-link")
    thread.start()
    try:
        yield link
    finally:
        link.stop()
        thread.join(60)
        assert not thread.is_alive()
