"""What the site's operators may ask the trainer: one name, one question and one answer each, and how they cross.

A stream on a Unix socket: each message is four bytes of length (big-endian) and a record in its one spelling. Not gRPC,
which does not tell a Python service whose process calls.
"""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import Field

from common.errors import FedscanError
from common.records import Record

FOLDER, SOCKET = "operators", "trainer.sock"
MAX_QUESTION, MAX_ANSWER = 4 * 1024 * 1024, 64 * 1024 * 1024  # bytes
_LENGTH = 4

Question = TypeVar("Question", bound=Record)
Answer = TypeVar("Answer", bound=Record)


@dataclass(frozen=True)
class Operation(Generic[Question, Answer]):
    """One thing that an operator may ask; both ends import it.

    Attributes:
        name: As it crosses.
        question: What it is asked with.
        answer: What comes back.
    """

    name: str
    question: type[Question]
    answer: type[Answer]


class Asked(Record):
    """The first message of a call; the question is the second."""

    operation: str = Field(max_length=60)


class Verdict(Record):
    """The first message back; with `done` the answer is the second.

    Attributes:
        state: Whether it was done.
        code: Why not, a code of `common.errors`.
        message: Why not, for people.
    """

    state: Literal["done", "refused"]
    code: str = ""
    message: str = Field("", max_length=20_000)


class TalkError(FedscanError):
    """The other end left in the middle, or sends more than may be read."""


def socket_of(home: Path) -> Path:
    """Where the trainer of the site in `home` listens to its operators."""
    return home / FOLDER / SOCKET


def send(to: socket.socket, record: Record) -> None:
    """One message; raises OSError."""
    raw = record.canonical()
    to.sendall(len(raw).to_bytes(_LENGTH, "big") + raw)


def receive(source: socket.socket, limit: int) -> bytes:
    """The next message, of at most `limit` bytes; raises TalkError, OSError."""
    n = int.from_bytes(_exactly(source, _LENGTH), "big")
    if n > limit:
        raise TalkError(f"a message of {n} bytes; at most {limit} are read")
    return _exactly(source, n)


def _exactly(source: socket.socket, n: int) -> bytes:
    parts, left = list[bytes](), n
    while left:
        part = source.recv(min(left, 1 << 16))
        if not part:
            raise TalkError("the other end left in the middle of a message")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
