"""The trainer's second door, for the people of the site: out of the link's reach, and it knows who calls.

operators/               0700 of the trainer's user; 0750 with a group
operators/trainer.sock   0600; 0660 with a group
"""

import contextlib
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.handover.mailbox import Mailbox
from client.handover.operation import (
    MAX_ANSWER,
    MAX_QUESTION,
    Answer,
    Asked,
    Operation,
    Question,
    TalkError,
    Verdict,
    receive,
    send,
    socket_of,
)
from client.handover.peer import Caller, StrangerError, caller, group_number, supported, user_name
from common.disk import umask
from common.errors import FedscanError
from common.records import Record, RecordError, read_record
from common.rpc import address

log = logging.getLogger("fedscan.trainer")

_PATIENCE = 10.0  # seconds for which a silent caller is waited for
_AT_ONCE = 16


@dataclass(frozen=True)
class Counter:
    """Who may call.

    Attributes:
        group: Number of the group whose members may; none for the trainer's own user alone.
        links: Users of the link, where it has one of its own: they never may.
    """

    group: int | None = None
    links: Callable[[], frozenset[int]] = frozenset

    def check(self, who: Caller) -> None:
        """Raises StrangerError for whoever may not call."""
        if who.uid in self.links():
            raise StrangerError(f"{who.name} is the user of the link, which has a network and may ask nothing here")
        if self.group is None:
            if who.uid != os.getuid():
                raise StrangerError(
                    f"{who.name} may not ask this trainer anything: site.yaml names no group of operators, so only "
                    f"{user_name(os.getuid())} may"
                )
        elif self.group not in who.groups:
            raise StrangerError(
                f"{who.name} is not in the group of the site's operators (site.yaml, operators: group), or was not yet "
                "when this session began"
            )


class Operations:
    """All that operators may ask: a table of operations and who answers them."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[Operation[Any, Any], Callable[[Any, Caller], Record]]] = {}

    def on(self, operation: Operation[Question, Answer], answer: Callable[[Question, Caller], Answer]) -> None:
        """Answer `operation` by `answer(question, caller)`; a FedscanError that it raises is told to the caller."""
        self._answers[operation.name] = (operation, answer)

    def answer(self, name: str, raw: bytes, who: Caller) -> Record:
        """The answer to one call; raises FedscanError."""
        if name not in self._answers:
            raise FedscanError(f"this trainer knows no operation {name!r}: update fedscan, or restart the trainer")
        operation, answer = self._answers[name]
        try:
            question = read_record(operation.question, raw, MAX_QUESTION)
        except RecordError as error:
            raise FedscanError(f"the question {error}") from None
        return answer(question, who)


@contextlib.contextmanager
def serve_operators(home: Path, group: str | None, operations: Operations) -> Iterator[None]:
    """Answer the operators of the site in `home` until the context ends.

    Args:
        home: The site's folder.
        group: The Unix group whose members may ask; none for the trainer's own user alone.
        operations: What they may ask.

    Raises:
        FedscanError: There is no such group, this user may not give it the socket, or no socket can be made here.
    """
    if not supported():
        log.warning("this system does not tell who calls: the trainer has no operators' socket")
        yield
        return
    number = None if group is None else group_number(group)
    path = socket_of(home)
    counter = Counter(number, lambda: _link_users(home))
    try:
        with umask(0o177):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.parent.chmod(0o700)
            path.unlink(missing_ok=True)
            server = _Server(address(path).removeprefix("unix:"), counter, operations)
            _give(path, number)
    except OSError as error:
        why = error.strerror or str(error)
        own = f"; {user_name(os.getuid())} must be a member of {group} to give it the socket" if group else ""
        raise FedscanError(f"{path}: no socket for the operators can be made ({why}){own}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="operators")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        path.unlink(missing_ok=True)


def _give(path: Path, group: int | None) -> None:
    """The socket first: until the folder opens nobody reaches it."""
    if group is None:
        path.chmod(0o600)
        return
    os.chown(path, -1, group)
    path.chmod(0o660)
    os.chown(path.parent, -1, group)
    path.parent.chmod(0o750)


def _link_users(home: Path) -> frozenset[int]:
    """Owners of what the link writes; none where it is this process's own user."""
    found = set[int]()
    for path in (home / "link", Mailbox(home).link_status):
        with contextlib.suppress(OSError):
            found.add(path.lstat().st_uid)
    # Root's is what the system put in the place of a folder that this process may not see.
    return frozenset(found - {os.getuid(), 0})


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _AT_ONCE

    def __init__(self, path: str, counter: Counter, operations: Operations) -> None:
        super().__init__(path, _Handler)
        self.counter = counter
        self.operations = operations
        self.places = threading.BoundedSemaphore(_AT_ONCE)

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that left is nobody's problem."""
        log.debug("a caller on the operators' socket left")


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(_PATIENCE)
        if not self.server.places.acquire(blocking=False):
            return
        try:
            self._answer()
        except (TalkError, OSError):
            return
        finally:
            self.server.places.release()

    def _answer(self) -> None:
        first, raw = receive(self.request, MAX_QUESTION), receive(self.request, MAX_QUESTION)
        try:
            answer = self._found(first, raw)
        except FedscanError as error:
            send(self.request, Verdict(state="refused", code=error.code, message=str(error)[:20_000]))
            return
        except Exception:
            log.exception("an operator's question failed")
            said = "the trainer met an error that nobody expected; its log says more"
            send(self.request, Verdict(state="refused", code=FedscanError.code, message=said))
            return
        send(self.request, Verdict(state="done"))
        send(self.request, answer)

    def _found(self, first: bytes, raw: bytes) -> Record:
        who = caller(self.request)
        try:
            self.server.counter.check(who)
        except StrangerError:
            log.warning("the operators' socket was asked by %s, who may not", who.name)
            raise
        try:
            asked = read_record(Asked, first, MAX_QUESTION)
        except RecordError as error:
            raise FedscanError(f"the call {error}") from None
        answer = self.server.operations.answer(asked.operation, raw, who)
        if len(answer.canonical()) > MAX_ANSWER:
            raise FedscanError("the answer is too long to be sent; ask for a part of it")
        return answer
