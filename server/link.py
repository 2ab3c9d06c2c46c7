"""The coordinator's side of the wire: Flower's Fleet API, its state in memory, and our own way of taking replies.

Flower's app keeps the nodes, checks their signatures and hands out messages. What it does not do, our handlers do
before its own are asked: a message is handed out until the site confirms it (Flower does so once, whatever gets lost),
a site gets no object but those of its own tasks, and replies are taken on disk, each within its task's allowance.
All of Flower's private names on the coordinator's side are here.
"""

import common.quiet  # noqa: F401

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from flwr.app import Array, ArrayRecord, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ISOLATION_MODE_PROCESS, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.protobuf.routing import ProtobufRoute
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_DEPENDENCY
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app
from flwr.superlink.servicer.fleet import fleet_handlers
from google.protobuf.message import DecodeError

from common import wire
from common.errors import FedscanError, WireError
from server.assembly import assemble
from server.gate import INSTANCE, OBJECT, Enrolled, SiteRecord, key_on_the_wire
from server.inbox import Allowance, Inbox, Refused
from server.refusals import Refusals

HEARTBEAT = 10.0  # seconds, Flower's shortest: a dead process holds its node for two of them


def _instance(request: Request) -> str:
    return request.headers[INSTANCE.decode()]


def _content(request: Request) -> list[bytes]:
    content: list[bytes] = request.scope["state"][OBJECT]
    return content


@dataclass
class _Open:
    """A task that was sent and not yet answered."""

    instruction: Message
    site: str
    objects: frozenset[str]
    allowance: Allowance
    confirmed: bool = False


class _NoServers(SuperLinkLifespan):
    """Flower's own listeners stay shut, whatever the environment says."""

    def startup(self) -> None:
        """Nothing to start."""

    def shutdown(self) -> None:
        """Nothing to stop."""


class Fleet:
    """Nodes, tasks and replies of one coordinator process.

    Args:
        enrolled: The sites; new and revoked ones are seen at once.
        inbox: Folder for replies on their way.
        refusals: Told of replies that are no replies.
    """

    def __init__(self, enrolled: Enrolled, inbox: Path, refusals: Refusals) -> None:
        logging.getLogger("flwr").setLevel(logging.WARNING)
        self._enrolled = enrolled
        self._refusals = refusals
        self._inbox = Inbox(inbox)
        self._lock = threading.RLock()
        self._open: dict[str, _Open] = {}
        self._holders: dict[str, str] = {}
        self._names: dict[int, str] = {}
        self.app = _flower_app()
        self._state = self.app.state.linkstate_factory.state()
        self._run, self._task = self._open_run()
        for site in enrolled.sites():
            if not site.revoked:
                self._node(site)
        self._add_routes()

    def _open_run(self) -> tuple[int, int]:
        run: int = self._state.create_run(
            "fedscan/study", "1", "0" * 64, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task: int = self._state.get_tasks(run_ids=[run])[0].task_id
        if not (self._state.claim_task(task) and self._state.activate_task(task)):
            raise FedscanError("Flower did not start the run; is another flwr than the pinned one installed?")
        # Flower fails a run whose process has been silent for a minute. This one lives as long as the state itself,
        # and must also outlive a machine that was suspended, in which no thread could have sent heartbeats.
        self._state.task_token_store[task].active_until = datetime.max.replace(tzinfo=UTC)
        wire.become(run, SUPERLINK_NODE_ID, task)
        return run, task

    def finish(self) -> None:
        """End Flower's run and forget all tasks."""
        self.forget()
        self._state.finish_task(self._task, SubStatus.COMPLETED, "")

    # Nodes

    def holder(self, site: str) -> str | None:
        """The instance that a site's node is bound to."""
        return self._holders.get(site)

    def sites(self) -> dict[str, int]:
        """Node ids of all sites that may take part, whether they are connected or not."""
        with self._lock:
            return {s.name: self._node(s) for s in self._enrolled.sites() if not s.revoked}

    def online(self) -> dict[str, int]:
        """Node ids of the sites that are connected."""
        there = self._state.get_nodes(self._run)
        return {name: node for name, node in self.sites().items() if node in there}

    def _node(self, site: SiteRecord) -> int:
        with self._lock:
            key = key_on_the_wire(site.node_key)
            node: int | None = self._state.get_node_id_by_public_key(key)
            if node is None:
                node = self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)
                # Flower stores messages for nodes that were there once; ours may come after their first task.
                self._state.activate_node(node, HEARTBEAT)
                self._state.deactivate_node(node)
            self._names[node] = site.name
            return node

    # Tasks

    def send(self, messages: Iterable[Message]) -> list[str]:
        """Put tasks where their sites find them; tasks that are still open are given up.

        Equal tensors of many messages are stored once.
        """
        self.forget()
        with no_object_id_recompute():
            return [self._send(message) for message in messages]

    def _send(self, message: Message) -> str:
        message_id: str = message.object_id
        message.metadata.__dict__["_message_id"] = message_id
        objects = get_all_nested_objects(message)
        tensors = sum(
            len(array.data)
            for record in message.content.values()
            if isinstance(record, ArrayRecord)
            for array in record.values()
            if isinstance(array, Array)
        )
        instruction = remove_content_from_message(message)
        # Flower shows a message as soon as its head is there; no site may see it before all of it is.
        with self._lock:
            name = self._names[message.metadata.dst_node_id]
            self._open[message_id] = _Open(instruction, name, frozenset(objects), Allowance(tensors))
            self._inbox.expect(message_id, self._open[message_id].allowance)
            session = self._state.start_session(self._run)
            stored, missing = self._state.store_message_and_object_tree(instruction, get_object_tree(message), session)
            if not stored:
                raise FedscanError(f"no site has the node {message.metadata.dst_node_id}")
            for object_id in missing:
                if not self._state.store_object(self._run, session, object_id, objects[object_id].deflate()):
                    raise FedscanError("Flower did not store a task")
        return message_id

    def take(self, message_id: str) -> Message | None:
        """The reply to a task, once it is there; its task is closed with it. Whatever a site sent, this is a reply."""
        task = self._open.get(message_id)
        if task is None:
            return None
        upload = self._inbox.whole(message_id)
        if upload is None and task.site in self.sites():
            return None
        try:
            if upload is None:
                raise FedscanError("the site was revoked")
            reply = _in_reply_to(task.instruction, assemble(upload, task.allowance), task.site)
        except FedscanError as error:
            self._refusals.say(task.site, "reply", str(error))
            reply = wire.error_reply(task.instruction, error.code)
        self._close(message_id)
        return reply

    def forget(self) -> None:
        """Give up all open tasks; who answers one is told so."""
        for message_id in list(self._open):
            self._close(message_id)

    def _close(self, message_id: str) -> None:
        with self._lock:
            self._open.pop(message_id, None)
            self._state.delete_messages({message_id})
            self._state.object_store.delete(message_id)
            self._inbox.close(message_id)

    # What sites ask

    def _add_routes(self) -> None:
        router = APIRouter(prefix="/v1/fleet", route_class=ProtobufRoute)
        handlers: dict[str, Callable[..., object]] = {
            "activate-node": self._activate,
            "pull-messages": self._pull_messages,
            "pull-object": self._pull_object,
            "confirm-message-received": self._confirm,
            "push-messages": self._push_messages,
            "push-object": self._push_object,
        }
        for verb, handler in handlers.items():
            router.add_api_route(f"/{verb}", _answering(handler), methods=["POST"])
        before = len(self.app.router.routes)
        self.app.include_router(router)
        ours = self.app.router.routes[before:]
        self.app.router.routes[:] = [*ours, *self.app.router.routes[:before]]  # the first that fits is taken

    def _activate(
        self,
        request: Annotated[ActivateNodeRequest, PROTOBUF_REQUEST_DEPENDENCY],
        instance: Annotated[str, Depends(_instance)],
    ) -> ActivateNodeResponse:
        with self._lock:
            site = next(s for s in self._enrolled.sites() if key_on_the_wire(s.node_key) == request.public_key)
            node = self._node(site)
            if self._state.get_node_info(node_ids=[node], statuses=[NodeStatus.ONLINE]):
                if self._holders.get(site.name) != instance:
                    raise Refused(412, "another process with this identity is active")
                self._state.deactivate_node(node)
            response = fleet_handlers.activate_node(request=request, state=self._state)
            if self._holders.get(site.name) != instance:
                for task in self._tasks(node).values():
                    task.confirmed = False  # the process that had it is gone
            self._holders[site.name] = instance
            return response

    def _tasks(self, node: int) -> dict[str, _Open]:
        return {i: t for i, t in self._open.items() if t.instruction.metadata.dst_node_id == node}

    def _task_of(self, node: int, message_id: str) -> _Open:
        task = self._open.get(message_id)
        if task is None or task.instruction.metadata.dst_node_id != node:
            raise Refused(410, "this task is not open any more")
        return task

    def _pull_messages(
        self, request: Annotated[PullMessagesRequest, PROTOBUF_REQUEST_DEPENDENCY]
    ) -> PullMessagesResponse:
        with self._lock:
            for message_id, task in self._tasks(request.node.node_id).items():
                stored = self._state.message_ins_store.get(message_id)
                if stored is not None and not task.confirmed and self._inbox.whole(message_id) is None:
                    stored.metadata.delivered_at = ""
            return fleet_handlers.pull_messages(request=request, state=self._state, store=self._state.object_store)

    def _pull_object(self, request: Annotated[PullObjectRequest, PROTOBUF_REQUEST_DEPENDENCY]) -> PullObjectResponse:
        with self._lock:
            if not any(request.object_id in t.objects for t in self._tasks(request.node.node_id).values()):
                raise Refused(410, "no open task of this site has such an object")
        return fleet_handlers.pull_object(request=request, state=self._state)

    def _confirm(
        self, request: Annotated[ConfirmMessageReceivedRequest, PROTOBUF_REQUEST_DEPENDENCY]
    ) -> ConfirmMessageReceivedResponse:
        with self._lock:
            self._task_of(request.node.node_id, request.message_object_id).confirmed = True
        return ConfirmMessageReceivedResponse()

    def _push_messages(
        self, request: Annotated[PushMessagesRequest, PROTOBUF_REQUEST_DEPENDENCY]
    ) -> PushMessagesResponse:
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Refused(400, "one reply at a time")
        about, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        task = about.reply_to_message_id
        self._task_of(request.node.node_id, task)
        upload = self._inbox.begin(task, tree.object_id, (t.object_id for t in iterate_object_tree(tree)))
        session = f"{task}.{upload.session}"
        return PushMessagesResponse(results={tree.object_id: 0}, objects_to_push=upload.missing, session_id=session)

    def _push_object(
        self,
        request: Annotated[PushObjectRequest, PROTOBUF_REQUEST_DEPENDENCY],
        content: Annotated[list[bytes], Depends(_content)],
    ) -> PushObjectResponse:
        task, _, session = request.session_id.partition(".")
        self._task_of(request.node.node_id, task)
        self._inbox.put(task, session, request.object_id, content.pop())
        return PushObjectResponse(stored=True)


def split(body: bytes) -> tuple[bytes, bytes]:
    """A request that pushes an object, without the object, and the object; raises Refused when it is none."""
    try:
        request = PushObjectRequest.FromString(body)
    except DecodeError:
        raise Refused(400, "the body is not protobuf") from None
    content: bytes = request.object_content
    request.ClearField("object_content")
    return request.SerializeToString(), content


def _answering(handler: Callable[..., object]) -> Callable[..., object]:
    """A handler whose refusals become HTTP answers."""

    @wraps(handler)
    def answer(*args: object, **kwargs: object) -> object:
        try:
            return handler(*args, **kwargs)
        except Refused as refusal:
            raise HTTPException(refusal.status, str(refusal) if refusal.status < 500 else "not now") from None

    return answer


def _in_reply_to(instruction: Message, sent: Message, site: str) -> Message:
    """The content of what a site sent, as the reply to its task: nothing else that it says of itself counts."""
    if sent.has_error():
        return wire.error_reply(instruction, sent.error.reason or "")
    about = sent.content.get(wire.TASK)
    if about is not None and about.get("site", site) != site:
        raise WireError("the site answers under another name than the one that it is enrolled by")
    return Message(sent.content, reply_to=instruction)


def _flower_app() -> FastAPI:
    return create_app(
        SuperLinkLifespanConfig(
            control_address="", health_server_address=None, host="", port=0, insecure=False, certificates=None,
            superexec_auth_secret=os.urandom(32), authn_plugin=load_control_authn_plugin(), event_log_plugin=None,
            fleet_event_log_plugin=None, enable_event_log=False, artifact_provider=None, enable_supernode_auth=True,
            fleet_api_type="grpc-rere", fleet_api_address=None, simulation=False, ssl_ca_certfile=None,
            ssl_certfile=None, ssl_keyfile=None, database=FLWR_IN_MEMORY_DB_NAME, isolation=ISOLATION_MODE_PROCESS,
            runtime_dependency_install=False,
        ),
        _NoServers,
    )  # fmt: skip
