"""gRPC on a Unix socket between the processes of one machine: messages are records, as JSON in their one spelling.

No generated code and no network: who may open the socket is a matter of the file's mode. Whatever arrives is read as
what strangers send: bounded, closed keys, nothing converted.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import grpc

from common.disk import umask
from common.errors import FedscanError
from common.records import AnyRecord, Record, RecordError, read_record

LIMIT = 4 * 1024 * 1024  # bytes of a message
_DETAILS = 4000  # characters of an error: they travel in a header
_PATH = 107 if sys.platform == "linux" else 103  # bytes of a socket's path (sockaddr_un)
_OPTIONS = (
    ("grpc.max_receive_message_length", LIMIT),
    ("grpc.max_send_message_length", LIMIT),
    ("grpc.enable_http_proxy", 0),
    ("grpc.so_reuseport", 0),
)

Answer = Callable[[Any, grpc.ServicerContext], Any]


class Empty(Record):
    """Nothing to say."""


@dataclass(frozen=True)
class Call:
    """One method of a service.

    Attributes:
        request: What it is asked with.
        answer: Called with the request and gRPC's context; returns a record, or yields records if `stream`. A
            FedscanError that it raises becomes the status FAILED_PRECONDITION.
        stream: Whether it answers with many records.
    """

    request: type[Record]
    answer: Answer
    stream: bool = False


class RpcServer:
    """A service on a Unix socket, as a context manager.

    Args:
        socket: Where; what lies there from an earlier process is replaced.
        service: The service's name.
        calls: Its methods by name.
        mode: Of the socket, from its first moment on.
        tell: What a caller reads of an error.
        threads: Calls at the same time, streams included; one more is refused.
        garbage: Called when a request is none that could be read.
    """

    def __init__(
        self,
        socket: Path,
        service: str,
        calls: Mapping[str, Call],
        mode: int,
        tell: Callable[[FedscanError], str] = str,
        threads: int = 16,
        garbage: Callable[[], object] = lambda: None,
    ) -> None:
        self._socket = socket
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=service)
        self._server = grpc.server(self._pool, options=_OPTIONS, maximum_concurrent_rpcs=threads)
        handlers = {name: _handler(call, tell, garbage) for name, call in calls.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        target = address(socket)
        try:
            with umask(0o777 & ~mode):
                socket.unlink(missing_ok=True)
                self._server.add_insecure_port(target)
                socket.chmod(mode)
        except (RuntimeError, OSError) as error:
            raise FedscanError(f"{socket}: no socket can be made here ({error})") from None

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A second in which answers that are on their way arrive; streams are ended.
        self._server.stop(1).wait()
        self._pool.shutdown()
        self._socket.unlink(missing_ok=True)


class RpcClient:
    """The other end, as a context manager.

    Args:
        socket: Where the service listens.
        service: Its name.
    """

    def __init__(self, socket: Path, service: str) -> None:
        self._service = service
        self._channel = grpc.insecure_channel(address(socket), options=_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all calls and the connection."""
        self._channel.close()

    def call(self, method: str, request: Record, answer: type[AnyRecord], timeout: float) -> AnyRecord:
        """Ask and wait for the answer, at most `timeout` seconds; raises grpc.RpcError, RecordError."""
        raw = self._channel.unary_unary(f"/{self._service}/{method}")(request.canonical(), timeout=timeout)
        return read_record(answer, raw, LIMIT)

    def stream(self, method: str, request: Record, answer: type[AnyRecord]) -> Iterator[AnyRecord]:
        """Ask and yield the answers as they come; closing the iterator ends the call. Raises as `call` does."""
        answers = self._channel.unary_stream(f"/{self._service}/{method}")(request.canonical())
        try:
            for raw in answers:
                yield read_record(answer, raw, LIMIT)
        finally:
            answers.cancel()


def address(socket: Path) -> str:
    """A socket's address; the shorter of its absolute and relative path, because the system allows few bytes.

    Raises:
        FedscanError: Both are too long.
    """
    whole = socket.absolute()
    spellings = [str(whole), os.path.relpath(whole)]
    shortest = min(spellings, key=lambda s: len(os.fsencode(s)))
    if len(os.fsencode(shortest)) > _PATH:
        raise FedscanError(
            f"{whole}: a socket's path may have {_PATH} bytes; choose a shorter folder, or call the command from within"
        )
    return f"unix:{shortest}"


def _handler(call: Call, tell: Callable[[FedscanError], str], garbage: Callable[[], object]) -> grpc.RpcMethodHandler:
    def read(raw: bytes, context: grpc.ServicerContext) -> Record:
        try:
            return read_record(call.request, raw, LIMIT)
        except RecordError as error:
            garbage()
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"the request {error}")

    def one(raw: bytes, context: grpc.ServicerContext) -> bytes:
        request = read(raw, context)
        try:
            answer: Record = call.answer(request, context)
        except FedscanError as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, tell(error))
        return answer.canonical()

    def many(raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = read(raw, context)
        try:
            for answer in call.answer(request, context):
                yield answer.canonical()
        except FedscanError as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, tell(error))

    return grpc.unary_stream_rpc_method_handler(many) if call.stream else grpc.unary_unary_rpc_method_handler(one)


def _abort(context: grpc.ServicerContext, status: grpc.StatusCode, why: str) -> NoReturn:
    context.abort(status, why[:_DETAILS])
    raise AssertionError("abort returns never")
