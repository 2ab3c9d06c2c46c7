"""The trainer's answers to operators who decide on studies. Who decides is the kernel's word, never the caller's."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from client.approval import ApprovalRule
from client.handover.operators import Operations
from client.handover.peer import Caller
from client.handover.study_operations import DECIDE, LIST, SHOW, Decide, Shown, Standing, Studies, Which
from client.identity import Identity
from client.site import LabelRange, LabelRule, SiteConfig, site_of_home
from client.work.approval_record import Approval
from client.work.approvals import Approvals, decision
from common.errors import ApprovalError, PolicyError, StudyError
from common.rpc import Empty
from common.schema import Schema
from common.section import AT_SITE
from common.signing import key_id, key_of
from common.study import Study
from common.uplink import Uplink


class StudyDesk:
    """Answers for one site.

    Args:
        home: The site's folder.
        approvals: What was decided.
        ended: Called with the digest of a study that may not run any more.
    """

    def __init__(self, home: Path, approvals: Approvals, ended: Callable[[str], None]) -> None:
        self._home = home
        self._approvals = approvals
        self._ended = ended
        self._nbytes: dict[str, int] = {}  # of an update, by the study's digest: to know it, the net is built

    def open(self, operations: Operations) -> None:
        """Put what is answered here on the table."""
        operations.on(LIST, self._list)
        operations.on(SHOW, self._show)
        operations.on(DECIDE, self._decide)

    def _list(self, _: Empty, who: Caller) -> Studies:
        config = site_of_home(self._home)
        found = [self._standing(a, config) for a in self._approvals.all()]
        return Studies(studies=found, rule=config.approval.rule)

    def _show(self, which: Which, who: Caller) -> Shown:
        approval = self._approvals.find(which.study)
        config, federation = site_of_home(self._home), Identity(self._home).federation()
        return Shown(
            standing=self._standing(approval, config), before=self._approvals.approved_before(approval),
            site=federation.site, coordinator=f"{federation.host}:{federation.port}",
            key=key_id(key_of(federation.signing_key)),
            labels={label: _in_words(value) for label, value in config.labels.items()},
        )  # fmt: skip

    def _decide(self, asked: Decide, who: Caller) -> Standing:
        approval = self._approvals.find(asked.study)
        if asked.until is not None and asked.until <= datetime.now(UTC):
            raise ApprovalError(f"until {asked.until:%Y-%m-%d %H:%M} UTC: that is over already")
        if asked.what != "approve" and (asked.until or asked.rounds or asked.purpose != "all"):
            raise ApprovalError(f"limits are for an approval; a {asked.what} has none")
        said = decision(asked.what, who, asked.why, until=asked.until, rounds=asked.rounds, purpose=asked.purpose)
        self._approvals.decide(approval, said, author_of(approval))
        if asked.what != "approve":
            self._ended(approval.study)
        return self._standing(self._approvals.find(approval.study), site_of_home(self._home))

    def _standing(self, approval: Approval, config: SiteConfig) -> Standing:
        found = standing(approval, config.approval)
        if found.state not in ("waiting", "approved"):
            return found
        try:
            study = Study.model_validate(json.loads(approval.signed.body), context=AT_SITE)
        except ValueError:
            return found  # of another version of fedscan, as whoever looks at it is told
        try:
            if approval.study not in self._nbytes:
                self._nbytes[approval.study] = Uplink.of(study, Schema.of(study)).nbytes
            config.policy.check_study(study, self._nbytes[approval.study])
        except (PolicyError, StudyError) as error:
            return found.model_copy(update={"refused": str(error)})
        return found


def standing(approval: Approval, rule: ApprovalRule) -> Standing:
    """How a study stands now."""
    state = approval.state(rule, datetime.now(UTC))
    missing = max(0, rule.approvers - len(approval.consents())) if state == "waiting" else 0
    return Standing(approval=approval, state=state, limits=approval.limits(rule), missing=missing)


def author_of(approval: Approval) -> str:
    """Who wrote a study, as it says itself."""
    author = json.loads(approval.signed.body).get("author", "")
    return author if isinstance(author, str) else ""


def _in_words(rule: LabelRule) -> str:
    if isinstance(rule, LabelRange):
        return f"{rule.low:g} to {rule.high:g}"
    return " or ".join(map(str, rule)) if isinstance(rule, tuple) else str(rule)
