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

    Never holds more than one reply. Returns when all have answered or `deadline` seconds have passed; who has not
    answered by then was never taken.
    """
    if not messages:
        return
    sites = dict(zip(grid.push_messages(list(messages.values())), messages, strict=True))
    end = time.monotonic() + deadline if deadline else None
    while sites:
        before = len(sites)
        for message_id in list(sites):
            # One by one: what is pulled together is in memory together.
            for reply in grid.pull_messages([message_id]):
                site = sites.pop(message_id, None)
                if site is not None:
                    take(site, reply)
                del reply
        if len(sites) == before:
            if end is not None and time.monotonic() > end:
                return
            time.sleep(POLL)
