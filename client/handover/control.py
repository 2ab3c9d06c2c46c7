"""How the link gives work to the trainer: the service `fedscan.Trainer` on a Unix socket.

Only names, sizes, hashes and counts cross here; tasks and replies are files of the mailbox.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

import grpc
from pydantic import AwareDatetime, Field

from client.handover.files import Ref
from client.handover.mailbox import SOCKET_MODE
from common.errors import FedscanError
from common.records import Record, RecordError, RunName, Sha256
from common.rpc import Call, Empty, RpcClient, RpcServer
from common.section import Name

SERVICE = "fedscan.Trainer"
BEAT = 1.0  # seconds between two messages of a stream, at most
SILENCE = 60.0  # seconds without a message after which a trainer counts as hung

Code = Annotated[str, Field(pattern=r"^E_[A-Z_]{1,30}$")]
Count = Annotated[int, Field(ge=0)]


class Progress(Record):
    """One message of `Work`.

    Attributes:
        state: `working` until the last one, which is `done` or `refused`.
        done: Steps or cases that are done.
        of: How many there are; 0 while that is not known.
        reply: With `done`: the file that holds the reply, which may be an error's. With `refused`, where the task was
            this coordinator's: the signed word that it is.
        code: With `refused`: why the task was not accepted, a code of `common.errors`.
    """

    state: Literal["working", "done", "refused"]
    done: Count = 0
    of: Count = 0
    reply: Ref | None = None
    code: Code | None = None


class TrainerStatus(Record):
    """What the trainer says of itself; nothing of a patient or a path.

    Attributes:
        version: Of fedscan.
        site: The site's name in the federation; none before it has joined.
        device: Where nets live.
        study: Name of the study of the last task.
        digest: Its digest.
        run: The run of the last task.
        round: Its round.
        kind: What was asked.
        done: Steps or cases that are done.
        of: How many there are.
        since: When the work on it began; none when the trainer is idle.
        last_code: Why the last task failed or was refused; none after a success.
        paused: Since when the site is paused by its people.
        hours: The times of day at which it works, while it is not one of them.
        waiting: Studies that wait for somebody's decision.
    """

    version: str
    site: Name | None = None
    device: str
    study: Name | None = None
    digest: Sha256 | None = None
    run: RunName | None = None
    round: Count | None = None
    kind: Literal["join", "train", "evaluate", "result"] | None = None
    done: Count = 0
    of: Count = 0
    since: AwareDatetime | None = None
    last_code: Code | None = None
    paused: AwareDatetime | None = None
    hours: tuple[str, ...] = ()
    waiting: Count = 0


class TrainerBusyError(FedscanError):
    """The trainer works on another task that is not older; ask again later."""


class TrainerGoneError(FedscanError):
    """No trainer answers, or it went away or hung in the middle of a task."""


class Service(Protocol):
    """What the trainer offers."""

    def work(self, ref: Ref) -> Iterator[Progress]:
        """Work on a task; raises TrainerBusyError before the first message."""

    def status(self) -> TrainerStatus:
        """What it is doing."""


def serve(socket: Path, service: Service, garbage: Callable[[], object] = lambda: None) -> RpcServer:
    """The service on `socket`, as a context manager; raises FedscanError when there can be no socket.

    A caller reads codes only: what an error says may name scans. `garbage` is called when what came is no request.
    """
    calls = {
        "Work": Call(Ref, lambda ref, context: _while_heard(service.work(ref), context), stream=True),
        "Status": Call(Empty, lambda _, context: service.status()),
    }
    return RpcServer(socket, SERVICE, calls, SOCKET_MODE, tell=lambda error: error.code, garbage=garbage)


def _while_heard(messages: Iterator[Progress], context: grpc.ServicerContext) -> Iterator[Progress]:
    for message in messages:
        if not context.is_active():
            return
        yield message


class TrainerClient:
    """The link's end.

    Args:
        socket: The trainer's socket.
        silence: Seconds without a message after which `work` gives up a trainer.
    """

    def __init__(self, socket: Path, silence: float = SILENCE) -> None:
        self._socket = socket
        self._silence = silence

    def work(self, ref: Ref) -> Iterator[Progress]:
        """Give the trainer a task and yield how it goes on, at least every 2 s; the last message is not `working`.

        The same task may be given as often as needed: work goes on, or the stored reply is named. Closing the iterator
        does not stop the work.

        Raises:
            TrainerBusyError: It works on a task that is not older than this one.
            TrainerGoneError: It does not answer, or no longer.
        """
        with RpcClient(self._socket, SERVICE) as client:
            messages = self._told(client.stream("Work", ref, Progress))
            while True:
                # A connection is closed by a thread of its own while this one waits; a slow reader closes none.
                watch = threading.Timer(self._silence, client.close)
                watch.daemon = True
                watch.start()
                try:
                    message = next(messages, None)
                finally:
                    watch.cancel()
                    watch.join()
                if message is None:
                    raise TrainerGoneError("the trainer ended its answer in the middle; see its log")
                yield message
                if message.state != "working":
                    return

    def status(self, timeout: float = 5.0) -> TrainerStatus:
        """What the trainer is doing; raises TrainerGoneError."""
        with RpcClient(self._socket, SERVICE) as client:
            try:
                return client.call("Status", Empty(), TrainerStatus, timeout)
            except (grpc.RpcError, RecordError) as error:
                raise self._gone(error) from None

    def _told(self, messages: Iterator[Progress]) -> Iterator[Progress]:
        try:
            yield from messages
        # ValueError: the watch closed the connection before anything was asked on it.
        except (grpc.RpcError, RecordError, ValueError) as error:
            if isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise TrainerBusyError("the trainer works on another task") from None
            raise self._gone(error) from None

    def _gone(self, error: Exception) -> TrainerGoneError:
        why = error.code().name if isinstance(error, grpc.RpcError) else type(error).__name__
        return TrainerGoneError(f"no trainer answers on {self._socket} ({why}); start it with: fedscan site trainer")
