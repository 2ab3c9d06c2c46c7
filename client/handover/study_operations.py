"""What operators may ask about studies."""

from typing import Literal

from pydantic import AwareDatetime, Field

from client.handover.operation import Operation
from client.work.approval_record import Approval, Limits, Purpose, State
from common.records import Record, Sha256
from common.rpc import Empty
from common.section import Name


class Which(Record):
    """A study: its name, or the first letters of its digest."""

    study: str = Field(min_length=1, max_length=64)


class Standing(Record):
    """How a study stands.

    Attributes:
        approval: The study and what was decided.
        state: What follows from it now.
        limits: Within what it may run; none when it may not.
        missing: How many more people must approve it.
        refused: Why site.yaml's policy lets it not run, whatever people say; empty where it does.
    """

    approval: Approval
    state: State
    limits: Limits | None = None
    missing: int = Field(0, ge=0)
    refused: str = ""


class Studies(Record):
    """All studies that ever came, the last first."""

    studies: list[Standing]
    rule: Literal["none", "signer"]


class Shown(Record):
    """All that is needed to decide on a study.

    Attributes:
        standing: The study.
        before: What it is to be compared with: the last other study that was approved.
        site: This site's name in the federation.
        coordinator: Host and port to which everything goes.
        key: Id of the key that signed it.
        labels: This site's own values for the study's labels, as site.yaml has them.
    """

    standing: Standing
    before: Approval | None
    site: Name
    coordinator: str
    key: Sha256
    labels: dict[str, str]


class Decide(Record):
    """A decision.

    Attributes:
        study: The whole digest.
        what: Yes, no, or no longer.
        until: A yes counts until then.
        rounds: A yes counts for so many rounds.
        purpose: What a yes is for.
        why: In the decider's own words.
    """

    study: Sha256
    what: Literal["approve", "reject", "withdraw"]
    until: AwareDatetime | None = None
    rounds: int | None = Field(None, ge=1, le=100_000)
    purpose: Purpose = "all"
    why: str = Field("", max_length=500)


LIST = Operation("study.list", Empty, Studies)
SHOW = Operation("study.show", Which, Shown)
DECIDE = Operation("study.decide", Decide, Standing)
