"""What operators may ask about what happens here: stop, go on, what left, and whether the audit log is whole."""

from pydantic import Field

from client.handover.operation import Operation
from client.work.audit import Entry
from client.work.ledger import Line
from client.work.pause import Paused
from common.manifests import AuditHead
from common.records import Record
from common.rpc import Empty


class Why(Record):
    """Why it is asked, in the operator's words; they stay at the site."""

    why: str = Field("", max_length=500)


class Part(Record):
    """Which lines of the ledger.

    Attributes:
        round: Of this round alone; of all if none.
        after: The lines after so many.
        most: At most so many.
    """

    round: int | None = Field(None, ge=0)
    after: int = Field(0, ge=0)
    most: int = Field(1000, ge=1, le=1000)


class Lines(Record):
    """Lines of the ledger.

    Attributes:
        lines: As they stand there.
        seen: How many lines were looked at, those before included: where the next question goes on.
        end: Whether these are the last.
    """

    lines: list[Line]
    seen: int
    end: bool


class Known(Record):
    """What is known of the audit log from elsewhere; nothing if none."""

    head: AuditHead | None = None


class Verified(Record):
    """An audit log of which every line follows on the one before.

    Attributes:
        head: Its head now.
        last: Its last lines.
        left: Replies that it says left, each of which the ledger holds unchanged.
        strays: Lines of the ledger of which it says nothing: the trainer died before that reply could leave, or
            somebody else wrote them.
    """

    head: AuditHead
    last: list[Entry]
    left: int
    strays: int = 0


PAUSE = Operation("pause", Why, Paused)
UNPAUSE = Operation("unpause", Why, Empty)
EGRESS = Operation("egress", Part, Lines)
AUDIT = Operation("audit", Known, Verified)
