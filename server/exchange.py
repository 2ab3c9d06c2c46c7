"""Ask many nodes, take each answer as it comes."""

import time
from collections.abc import Callable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

POLL = 0.05  # seconds between two looks at a grid that had nothing new


def exchange(
    grid: Grid,
    messages: Mapping[str, Message],
    take: Callable[[str, Message], None],
    deadline: float | None,
) -> None:
    """Send each site its message and hand every reply to `take(site, reply)`, one at a time, as they arrive.

    Returns when all have answered or `deadline` seconds have passed; who has not answered by then was never taken.
    """
    if not messages:
        return
    sites = dict(zip(grid.push_messages(list(messages.values())), messages, strict=True))
    end = time.monotonic() + deadline if deadline else None
    while sites:
        arrived = False
        for reply in grid.pull_messages(list(sites)):
            arrived = True
            site = sites.pop(reply.metadata.reply_to_message_id, None)
            if site is not None:
                take(site, reply)
        if not arrived:
            if end is not None and time.monotonic() > end:
                return
            time.sleep(POLL)
