"""One task on its way through the trainer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from client.handover.control import Progress
from client.handover.files import Arrays, Ref
from client.work.tasks import Offer

State = Literal["waiting", "working", "done", "refused", "dropped"]


@dataclass
class Job:
    """One task from its acceptance to its end.

    Attributes:
        offer: The task.
        arrays: Its weights, until they are used.
        since: When it was accepted.
        done: Steps or cases done.
        of: How many there are.
        state: How it stands; `dropped` where its end is not wanted any more, or not now.
        reply: The answer that waits for the link.
        code: Why it was refused.
    """

    offer: Offer
    arrays: Arrays
    since: datetime
    done: int = 0
    of: int = 0
    state: State = "waiting"
    reply: Ref | None = None
    code: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ("done", "refused", "dropped")

    def message(self) -> Progress:
        """What the link is told of it."""
        state: Literal["working", "done", "refused"] = "working"
        if self.state == "done" or self.state == "refused":
            state = self.state
        return Progress(state=state, done=self.done, of=self.of, reply=self.reply, code=self.code)
