"""Flower's Grid over sites in this very process: one after another, and the same result every time."""

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from common.errors import FedscanError, RoundError
from common.wire import become, error_reply, stamp

SERVER, FIRST_SITE = 1, 2  # node ids


class InlineGrid(Grid):
    """Runs one waiting message each time replies are pulled, so never more than one reply is in memory.

    A site that takes longer than its message lives is answered for with an error, as if it had been late.

    Args:
        app: The ClientApp of all sites.
        sites: How many there are; node ids count from `FIRST_SITE`, in this order.
    """

    def __init__(self, app: ClientApp, sites: int) -> None:
        become(run_id=1, node_id=SERVER)
        self._app = app
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={"partition-id": i}, state=RecordDict(), run_config={})
            for i, node in enumerate(range(FIRST_SITE, FIRST_SITE + sites))
        }
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        """There is one run only."""

    @property
    def run(self) -> Any:
        """There is no run of Flower's here."""
        raise RoundError("an inline simulation has no Flower run")

    def get_node_ids(self) -> Iterable[int]:
        """All sites."""
        return list(self._contexts)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """An instruction from the server."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Put messages in the queue; returns their ids in order."""
        ids = []
        for message in messages:
            ids.append(stamp(message))
            self._waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the site of the first waiting message work, and return its reply."""
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                return [self._answer(message)]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All replies at once; memory grows with the sites."""
        return [reply for m in self.push_messages(messages) for reply in self.pull_messages([m])]

    def _answer(self, message: Message) -> Message:
        started = time.monotonic()
        reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        if time.monotonic() - started > message.metadata.ttl:
            return error_reply(message, FedscanError.code)
        return reply
