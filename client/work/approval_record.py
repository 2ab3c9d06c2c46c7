"""What a site's people decided of one study, and what follows from it at a given moment."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from client.approval import ApprovalRule
from common.errors import (
    ApprovalError,
    ApprovalExpiredError,
    ApprovalPurposeError,
    ApprovalRejectedError,
    ApprovalWaitingError,
    ApprovalWithdrawnError,
)
from common.manifests import RoundManifest
from common.records import Record, RunName, Sha256
from common.section import Name
from common.signing import Signed

State = Literal["waiting", "approved", "rejected", "withdrawn", "expired"]
Purpose = Literal["all", "evaluate"]
_AFTER: dict[str, State] = {"reject": "rejected", "withdraw": "withdrawn", "approve": "waiting"}
Who = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.$-]{1,64}$")]


class Decision(Record):
    """What one person said.

    Attributes:
        what: Yes, no, or no longer.
        who: Their user name, as the system told it.
        uid: Their user's number: two approvers are two numbers.
        when: When they said it.
        until: After this a yes counts no more.
        rounds: For how many rounds a yes counts.
        purpose: What it is for: `evaluate` lets a model be measured here, but not trained.
        why: Their own words.
        after: How many rounds had been worked on before.
    """

    what: Literal["approve", "reject", "withdraw"]
    who: Who
    uid: int
    when: AwareDatetime
    until: AwareDatetime | None = None
    rounds: int | None = Field(None, ge=1)
    purpose: Purpose = "all"
    why: str = Field("", max_length=500)
    after: int = Field(0, ge=0)


class Limits(Record):
    """Within what a study may run.

    Attributes:
        until: Until when.
        rounds: For how many rounds.
        used: How many of them were worked on.
        purpose: For what.
    """

    until: AwareDatetime | None = None
    rounds: int | None = None
    used: int = 0
    purpose: Purpose = "all"


class Approval(Record):
    """One study at one site (HOME/trainer/approvals/DIGEST.json).

    Attributes:
        study: Its digest.
        name: Its name.
        signed: The study as the coordinator signed it.
        seen: When it came first.
        decisions: What was said of it, the oldest first.
        used: Rounds that were worked on since it came.
        last: The last round of each run that was worked on.
    """

    format: Literal["fedscan.approval"] = "fedscan.approval"
    version: Literal[1] = 1
    study: Sha256
    name: Name
    signed: Signed
    seen: AwareDatetime
    decisions: list[Decision] = Field([])
    used: int = Field(0, ge=0)
    last: dict[RunName, int] = Field({})

    def consents(self) -> list[Decision]:
        """Each person's last yes since the last no, in the order in which they were said."""
        latest: dict[int, Decision] = {}
        for decision in self.decisions:
            if decision.what != "approve":
                latest.clear()
                continue
            latest.pop(decision.uid, None)
            latest[decision.uid] = decision
        return list(latest.values())

    def limits(self, rule: ApprovalRule) -> Limits | None:
        """Within what the study may run; none while not enough people have said yes (or the last said no)."""
        if self.decisions and self.decisions[-1].what != "approve":
            return None
        counted = self.consents()[-rule.approvers :]
        if len(counted) == rule.approvers:
            untils = [d.until for d in counted if d.until]
            # Each person's rounds count from their own yes on: nobody lengthens what another said.
            rounds = [(d.rounds, self.used - d.after) for d in counted if d.rounds]
            most, used = min(rounds, key=lambda r: r[0] - r[1], default=(None, 0))
            only = any(d.purpose == "evaluate" for d in counted)
            return Limits(
                until=min(untils, default=None), rounds=most, used=used, purpose="evaluate" if only else "all",
            )  # fmt: skip
        if rule.rule == "signer":
            until = None if rule.days is None else self.seen + timedelta(days=rule.days)
            return Limits(until=until, rounds=rule.rounds, used=self.used)
        return None

    def state(self, rule: ApprovalRule, now: datetime) -> State:
        """How the study stands; rounds that are used up do not show here: the last of them may still be open."""
        limits = self.limits(rule)
        if limits is not None:
            return "expired" if limits.until is not None and now > limits.until else "approved"
        last = self.decisions[-1].what if self.decisions else "approve"
        return _AFTER[last]

    def used_up(self, rule: ApprovalRule) -> bool:
        """Whether all rounds were worked on that were approved."""
        limits = self.limits(rule)
        return limits is not None and limits.rounds is not None and limits.used >= limits.rounds

    def check(self, manifest: RoundManifest, rule: ApprovalRule, now: datetime) -> None:
        """Raise the ApprovalError that says why the task may not be worked on, if it may not."""
        state, limits = self.state(rule, now), self.limits(rule)
        if state != "approved" or limits is None:
            raise _why_not(self, state)
        if manifest.kind == "train" and limits.purpose == "evaluate":
            raise ApprovalPurposeError(f"study {self.name} was approved for measuring only, not for training")
        if (manifest.kind == "join" or self.new_round(manifest)) and self.used_up(rule):
            raise ApprovalExpiredError(f"study {self.name} was approved for {limits.rounds} rounds, which are over")

    def check_open(self, rule: ApprovalRule, now: datetime) -> None:
        """As `check`, for a task whose round was counted when it was accepted."""
        state = self.state(rule, now)
        if state != "approved":
            raise _why_not(self, state)

    def new_round(self, manifest: RoundManifest) -> bool:
        """Whether a task is of a round (or of a run) that was not worked on yet."""
        return manifest.round > self.last.get(manifest.run, 0) or manifest.run not in self.last

    def begun(self, manifest: RoundManifest) -> "Approval":
        """Itself after a task was accepted. A join begins no round."""
        if manifest.kind == "join" or not self.new_round(manifest):
            return self
        return self.model_copy(update={"used": self.used + 1, "last": {**self.last, manifest.run: manifest.round}})

    def decided(self, decision: Decision) -> "Approval":
        """Itself after a decision; of a yes with its rounds they are counted from then on."""
        said = decision.model_copy(update={"after": self.used})
        return self.model_copy(update={"decisions": [*self.decisions, said]})


def _why_not(approval: Approval, state: State) -> ApprovalError:
    name, digest = approval.name, approval.study
    if state == "waiting":
        return ApprovalWaitingError(
            f"study {name} waits to be approved here; look at it with: fedscan site study show {digest[:12]}"
        )
    if state == "expired":
        return ApprovalExpiredError(f"study {name} was approved for a time that is over")
    if state == "rejected":
        return ApprovalRejectedError(f"study {name} was rejected here")
    return ApprovalWithdrawnError(f"the approval of study {name} was withdrawn here")
