"""The coordinator's side of the wire: Flower's state in memory, and our own way with tasks and replies.

Flower's state keeps the nodes and the messages. What its handlers do not do, ours do before they are asked: a message
is handed out until the site confirms it (Flower does so once, whatever gets lost), a site gets no object but those of
its own tasks, and replies are taken on disk, each within its task's allowance. Flower's private names on the
coordinator's side are here and in server/port/fleet_api.py.
"""

import common.quiet  # noqa: F401

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse, PushObjectResponse
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories
from flwr.superlink.servicer.fleet import fleet_handlers

from common import wire
from common.errors import FedscanError, WireError
from server.port.assembly import assemble
from server.port.fleet_api import Asked, FleetApi, Handler, Piece
from server.port.gate import Enrolled, SiteRecord, key_on_the_wire
from server.port.inbox import Allowance, Inbox, Refused
from server.port.pushed import field_front
from server.port.refusals import Refusals

HEARTBEAT = 10.0  # seconds, Flower's shortest: a dead process holds its node for two of them


@dataclass
class _Open:
    """A task that was sent and not yet answered."""

    instruction: Message
    site: str
    objects: frozenset[str]
    allowance: Allowance
    aside: bool = False
    ready: bool = False
    confirmed: bool = False


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
        factories: Any = get_objectstore_linkstate_factories(FLWR_IN_MEMORY_DB_NAME, get_federation_manager())
        self._state = factories[1].state()
        # It would hash each object of a task once more, right after it was named by its hash.
        self._state.object_store.verify = False
        self.api = FleetApi(self._handlers(), factories[1])
        self._run, self._task = self._open_run()
        for site in enrolled.sites():
            if not site.revoked:
                self._node(site)

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

        Equal tensors of many messages are stored once. What was sent aside waits on, unless its site is asked now.
        """
        for message_id in [i for i, task in list(self._open.items()) if not task.aside]:
            self._close(message_id)
        with no_object_id_recompute():
            return [sent for message in messages if (sent := self._send(message)) is not None]

    def send_aside(self, message: Message) -> str | None:
        """Put a message where its site finds it, beside the open tasks of other sites.

        A site is asked one thing at a time: None while it has an open task, and a task takes the message's place.
        """
        with no_object_id_recompute():
            return self._send(message, aside=True)

    def _send(self, message: Message, aside: bool = False) -> str | None:
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
        with self._lock:
            name = self._names[message.metadata.dst_node_id]
            before = [i for i, t in self._open.items() if t.site == name]
            if aside and before:
                return None
            for other in before:
                if self._open[other].aside:
                    self._close(other)
            task = self._open[message_id] = _Open(instruction, name, frozenset(objects), Allowance(tensors), aside)
            self._inbox.expect(message_id, task.allowance)
        session = self._state.start_session(self._run)
        stored, missing = self._state.store_message_and_object_tree(instruction, get_object_tree(message), session)
        if not stored:
            raise FedscanError(f"no site has the node {message.metadata.dst_node_id}")
        for object_id in missing:
            if not self._state.store_object(self._run, session, object_id, objects[object_id].deflate()):
                if not self.open(message_id):
                    break
                raise FedscanError("Flower did not store a task")
        # Flower has its head from the beginning; no site may see it before all of it is there. The lock is not held
        # meanwhile, because sites that ask for something else would wait for all those bytes.
        with self._lock:
            task.ready = True
            if message_id in self._open:
                return message_id
            self._close(message_id)  # a task of its site came in between
            return None

    def asked(self, site: str) -> bool:
        """Whether a site has an open task."""
        with self._lock:
            return any(task.site == site for task in self._open.values())

    def open(self, message_id: str) -> bool:
        """Whether a message was neither answered nor given up."""
        return message_id in self._open

    def take(self, message_id: str) -> Message | None:
        """The reply to a task, once it is there; its task is closed with it. Whatever a site sent, this is a reply."""
        task = self._open.get(message_id)
        if task is None:
            return None
        upload = self._inbox.whole(message_id)
        if upload is None and any(s.name == task.site and not s.revoked for s in self._enrolled.sites()):
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

    def _handlers(self) -> dict[str, Handler]:
        return {
            "activate-node": self._activate,
            "deactivate-node": lambda asked: _said(fleet_handlers.deactivate_node(asked.request, self._state)),
            "send-node-heartbeat": lambda asked: _said(fleet_handlers.send_node_heartbeat(asked.request, self._state)),
            "pull-messages": self._pull_messages,
            "pull-object": self._pull_object,
            "confirm-message-received": self._confirm,
            "push-messages": self._push_messages,
            "push-object": self._push_object,
        }

    def _activate(self, asked: Asked) -> Sequence[Piece]:
        with self._lock:
            found = (s for s in self._enrolled.sites() if key_on_the_wire(s.node_key) == asked.request.public_key)
            site = next(found, None)
            if site is None:
                raise Refused(403, "this node key belongs to no enrolled site")
            node = self._node(site)
            if self._state.get_node_info(node_ids=[node], statuses=[NodeStatus.ONLINE]):
                if self._holders.get(site.name) != asked.instance:
                    raise Refused(412, "another process with this identity is active")
                self._state.deactivate_node(node)
            response = fleet_handlers.activate_node(request=asked.request, state=self._state)
            if self._holders.get(site.name) != asked.instance:
                for task in self._tasks(node).values():
                    task.confirmed = False  # the process that had it is gone
            self._holders[site.name] = asked.instance
            return _said(response)

    def _tasks(self, node: int) -> dict[str, _Open]:
        return {i: t for i, t in self._open.items() if t.instruction.metadata.dst_node_id == node and t.ready}

    def _task_of(self, node: int, message_id: str) -> _Open:
        task = self._tasks(node).get(message_id)
        if task is None:
            raise Refused(410, "this task is not open any more")
        return task

    def _pull_messages(self, asked: Asked) -> Sequence[Piece]:
        with self._lock:
            tasks = self._tasks(asked.request.node.node_id)
            if not tasks:
                return _said(PullMessagesResponse())
            for message_id, task in tasks.items():
                stored = self._state.message_ins_store.get(message_id)
                if stored is not None and not task.confirmed and self._inbox.whole(message_id) is None:
                    stored.metadata.delivered_at = ""
            store = self._state.object_store
            return _said(fleet_handlers.pull_messages(request=asked.request, state=self._state, store=store))

    def _pull_object(self, asked: Asked) -> Sequence[Piece]:
        with self._lock:
            if not any(asked.request.object_id in t.objects for t in self._tasks(asked.request.node.node_id).values()):
                raise Refused(410, "no open task of this site has such an object")
            content = self._state.get_object(self._run, asked.request.object_id)
        return object_answer(content)

    def _confirm(self, asked: Asked) -> Sequence[Piece]:
        with self._lock:
            self._task_of(asked.request.node.node_id, asked.request.message_object_id).confirmed = True
        return _said(ConfirmMessageReceivedResponse())

    def _push_messages(self, asked: Asked) -> Sequence[Piece]:
        request = asked.request
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Refused(400, "one reply at a time")
        about, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        task = about.reply_to_message_id
        with self._lock:
            self._task_of(request.node.node_id, task)
        upload = self._inbox.begin(task, tree.object_id, (t.object_id for t in iterate_object_tree(tree)))
        session = f"{task}.{upload.session}"
        missing = upload.missing
        return _said(PushMessagesResponse(results={tree.object_id: 0}, objects_to_push=missing, session_id=session))

    def _push_object(self, asked: Asked) -> Sequence[Piece]:
        task, _, session = asked.request.session_id.partition(".")
        with self._lock:
            self._task_of(asked.request.node.node_id, task)
        self._inbox.put(task, session, asked.request.object_id, asked.content)
        return _said(PushObjectResponse(stored=True))


def _said(response: Any) -> Sequence[Piece]:
    return [response.SerializeToString()]


def object_answer(content: bytes | None) -> Sequence[Piece]:
    """The answer that holds an object of a task, which is not copied for it."""
    if not content:
        return _said(PullObjectResponse(object_found=content is not None, object_available=False))
    found = PullObjectResponse(object_found=True, object_available=True).SerializeToString()
    return [found + field_front(PullObjectResponse.OBJECT_CONTENT_FIELD_NUMBER, len(content)), memoryview(content)]


def _in_reply_to(instruction: Message, sent: Message, site: str) -> Message:
    """The content of what a site sent, as the reply to its task: nothing else that it says of itself counts."""
    if sent.has_error():
        return wire.error_reply(instruction, sent.error.reason or "")
    about = sent.content.get(wire.TASK)
    if about is not None and about.get("site", site) != site:
        raise WireError("the site answers under another name than the one that it is enrolled by")
    return Message(sent.content, reply_to=instruction)
