"""The eight routes of Flower's Fleet API, answered without Flower's web application.

That application serves some seventy routes through nine layers, which cost a hundred times what the answer does. Here
are the same steps for the eight: protobuf is read, the node's signature is checked by Flower's own function, the
handler is called, its answer is written once. Whatever goes wrong in one of the steps is a refusal.
"""

import common.quiet  # noqa: F401

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fastapi import HTTPException, Request
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from google.protobuf.message import DecodeError

from server.port.inbox import Refused
from server.port.pushed import take_field

Header = tuple[bytes, bytes]
Piece = bytes | memoryview
REQUESTS: dict[str, Any] = {
    "activate-node": ActivateNodeRequest,
    "deactivate-node": DeactivateNodeRequest,
    "send-node-heartbeat": SendNodeHeartbeatRequest,
    "pull-messages": PullMessagesRequest,
    "push-messages": PushMessagesRequest,
    "pull-object": PullObjectRequest,
    "push-object": PushObjectRequest,
    "confirm-message-received": ConfirmMessageReceivedRequest,
}
INSTANCE = "fedscan-instance"


@dataclass(frozen=True)
class Asked:
    """A request whose node's signature was checked.

    Attributes:
        request: The protobuf message, without the object if it pushes one.
        instance: The process that sends it.
        content: The object, valid while it is handled.
    """

    request: Any
    instance: str
    content: memoryview


Handler = Callable[[Asked], Sequence[Piece]]


class FleetApi:
    """The eight routes.

    Args:
        handlers: For each verb.
        states: Flower's factory of the state that knows the nodes.
    """

    def __init__(self, handlers: dict[str, Handler], states: Any) -> None:
        self._routes = {f"/v1/fleet/{verb}": (kind, handlers[verb]) for verb, kind in REQUESTS.items()}
        # All that Flower's check asks of the application.
        self._app = SimpleNamespace(state=SimpleNamespace(linkstate_factory=states))

    def __call__(self, path: str, headers: Sequence[Header], body: memoryview) -> Sequence[Piece]:
        """The pieces of the answer; raises Refused."""
        kind, handler = self._routes[path]
        try:
            asked = self._read(kind, headers, body)
            return handler(asked)
        except HTTPException as error:
            raise Refused(error.status_code, str(error.detail)) from None
        except FlowerError as error:
            said = API_ERROR_MAP[error.code]
            raise Refused(said.http_status_code, said.public_message) from None

    def _read(self, kind: Any, headers: Sequence[Header], body: memoryview) -> Asked:
        if kind is PushObjectRequest:
            rest, content = take_field(body, PushObjectRequest.OBJECT_CONTENT_FIELD_NUMBER)
        else:
            rest, content = bytes(body), body[:0]
        try:
            request = kind.FromString(rest)
        except DecodeError:
            raise Refused(400, "the body is not protobuf") from None
        web = Request({"type": "http", "headers": headers, "app": self._app, "state": {"protobuf_request": request}})
        authenticate_node(web)
        return Asked(request, web.headers[INSTANCE], content)
