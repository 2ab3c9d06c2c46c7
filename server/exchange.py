"""Ask many nodes, take each answer as it comes."""

import threading
import time
from collections.abc import Callable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from common.errors import FedscanError

POLL = 0.05  # seconds between two looks at a grid that had nothing new


class Stopped(FedscanError):  # noqa: N818 - nothing is wrong
    """The operator stopped the run; it goes on where it was when it is started again."""


def exchange(
    grid: Grid,
    messages: Mapping[str, Message],
    take: Callable[[str, Message], None],
    deadline: Callable[[], float | None],
    stop: threading.Event | None = None,
) -> None:
    """Send each site its message and hand every reply to `take(site, reply)`, one at a time, as they arrive.

    Never holds more than one reply. Returns when all have answered or `deadline` seconds have passed since the
    messages were sent; who has not answered by then was never taken.

    Args:
        grid: Flower's way to the sites.
        messages: One for each site.
        take: Told of each reply.
        deadline: Seconds, asked anew each time that nobody answers; none to wait for all.
        stop: Set from another thread to leave.

    Raises:
        Stopped: `stop` was set.
    """
    if not messages:
        return
    sites = dict(zip(grid.push_messages(list(messages.values())), messages, strict=True))
    start = time.monotonic()
    while sites:
        if stop is not None and stop.is_set():
            raise Stopped("the run was stopped; it goes on where it was when it is started again")
        before = len(sites)
        for message_id in list(sites):
            # One by one: what is pulled together is in memory together.
            for reply in grid.pull_messages([message_id]):
                site = sites.pop(message_id, None)
                if site is not None:
                    take(site, reply)
                del reply
        if len(sites) == before:
            limit = deadline()
            if limit is not None and time.monotonic() > start + limit:
                return
            time.sleep(POLL)
