"""A coordinator in this process, and one site as it is: the real trainer, the real link, TLS between the two.

All that the coordinator is handed is kept as it came, byte for byte, before anything of ours looks at it.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flwr.app import ArrayRecord, Message

from client.link import Link
from common.errors import WireError
from common.manifests import AuditHead
from common.signing import key_id, key_text
from common.study import Study
from server.channel import Ask
from server.events import read_events
from server.exchange import exchange
from server.joining import Member, member
from server.manifests import Manifests
from server.rounds import Run
from server.sealed import Sealed, SealedReply
from tests.client.conftest import COORDINATOR, REPLY, ROUND, SIGNER, Hospital
from tests.e2e.conftest import World
from tests.e2e.site_home import make_home

HOST = "127.0.0.1"
RUN = "run-1"


class Enrolled:
    """The one site and its reply key."""

    def sites(self) -> list[Any]:
        return [SimpleNamespace(name="oslo", revoked=False)]

    def reply_key(self, site: str, key: str) -> Any:
        public = REPLY.public_key()
        return public if (site, key) == ("oslo", key_id(public)) else None


class Captured:
    """One reply as the coordinator got it.

    Attributes:
        arrays: Bytes by dtype.
        everything: Every byte of it.
        error: The unsigned code, where there is no reply.
    """

    def __init__(self, message: Message) -> None:
        self.arrays: dict[str, bytes] = {}
        self.header: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.error = message.error.reason if message.has_error() else None
        self.everything = str(message.metadata).encode()
        if self.error is not None:
            self.everything += str(message.error).encode()
            return
        content: dict[str, Any] = dict(message.content)
        for name, record in content.items():
            self.everything += name.encode()
            for key, value in record.items():
                self.everything += str(key).encode()
                if isinstance(record, ArrayRecord):
                    self.arrays[str(key)] = value.data
                    self.everything += value.data + str((value.dtype, value.shape, value.stype)).encode()
                elif isinstance(value, bytes):
                    self.everything += value
                    self.header = json.loads(json.loads(value)["body"])
                else:
                    self.everything += str(value).encode()
                    self.metrics[str(key)] = value


class Listening(Sealed):
    """The channel of a run, which keeps what comes."""

    captured: list[Captured]

    def received(self, site: str, reply: Message) -> SealedReply:
        self.captured.append(Captured(reply))
        return super().received(site, reply)


class Federation:
    """The coordinator and the hospital oslo."""

    def __init__(self, world: World, scans: Path) -> None:
        self.world, self.folder = world, world.folder
        self.hospital = Hospital(self.folder / "h", self.folder / "chains", scans)
        self.home = self.hospital.home
        self.heads: list[tuple[AuditHead, bool]] = []
        self.captured: list[Captured] = []

    @contextmanager
    def running(self, port: int | None = None) -> Iterator[Any]:
        """Coordinator and link; the trainer is started before them, for Flower knows one run per process.

        Args:
            port: Of a line between the two.
        """
        federation = (self.home / "federation.json").read_bytes()
        keys = self.world.enrol("oslo")
        with self.world.start() as server:
            make_home(self.home, keys, self.world.authority.path, HOST, port or server.port)
            made = json.loads((self.home / "federation.json").read_bytes())
            made["signing_key"] = json.loads(federation)["signing_key"]
            text = json.dumps(made, sort_keys=True, separators=(",", ":"))
            (self.home / "federation.json").write_text(text)
            link = Link(self.home)
            thread = threading.Thread(target=link.run, name="site-link")
            thread.start()
            try:
                yield server
            finally:
                link.stop()
                thread.join(60)
                assert not thread.is_alive()

    def channel(self, study: Study) -> Listening:
        signed = self.hospital.signed(study, RUN)
        manifests = Manifests(self.folder / "chain", signed, COORDINATOR, key_text(SIGNER.public_key()), ROUND)
        made = Listening(manifests, Enrolled(), COORDINATOR, lambda _, head, fresh: self.heads.append((head, fresh)))  # type: ignore[arg-type]
        made.captured = self.captured
        return made

    def join(self, server: Any, study: Study, channel: Listening, seconds: float = 60) -> Member | None:
        """The site as it says that it is; none where it refuses."""
        found: list[Member] = []
        node = server.fleet.sites()["oslo"]

        def take(site: str, reply: Message) -> None:
            try:
                found.append(member(site, node, channel.received(site, reply)))
            except WireError:
                return

        ask = Ask(RUN, 0, "join", {"oslo": node}, ["oslo"])
        exchange(server.grid, channel.messages(ask), take, lambda: seconds)
        return found[0] if found else None

    def run(self, server: Any, study: Study) -> Path:
        """The whole study; its folder."""
        channel = self.channel(study)
        joined = self.join(server, study, channel)
        assert joined is not None, [c.error for c in self.captured]
        folder = self.folder / RUN
        Run(server.grid, study, folder, [joined], [joined], channel=channel).start()
        return folder

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.folder / RUN / "events.jsonl")
