"""Flower's Grid over real sites: the rounds ask it as they ask a simulation's, and never learn the difference."""

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.errors import RoundError
from server.link import Fleet


class LinkGrid(Grid):
    """Tasks go out, replies come in one at a time.

    A site that is away is not a failed site: its task waits for it, and is given up only when new tasks are pushed.

    Args:
        fleet: The coordinator's side of the wire.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def set_run(self, run: Any) -> None:
        """There is one run only."""

    @property
    def run(self) -> Any:
        """Flower's run is the link's own business."""
        raise RoundError("the coordinator's link has no Flower run to show")

    def get_node_ids(self) -> Iterable[int]:
        """The sites that are connected."""
        return list(self._fleet.online().values())

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """An instruction from the coordinator."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send tasks; whatever was open before is given up. Returns their ids in order."""
        return self._fleet.send(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The first reply that is whole, if any is: never two in memory."""
        for message_id in message_ids:
            reply = self._fleet.take(message_id)
            if reply is not None:
                return [reply]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All replies at once; memory grows with the sites."""
        open_ids = list(self.push_messages(messages))
        end = time.monotonic() + timeout if timeout is not None else None
        replies: list[Message] = []
        while open_ids and (end is None or time.monotonic() < end):
            for message_id in list(open_ids):
                for reply in self.pull_messages([message_id]):
                    replies.append(reply)
                    open_ids.remove(message_id)
            time.sleep(0.05)
        return replies
