"""The studies that ever came to this site, and what its people decided of them. The trainer alone writes here.

They are read once, when the trainer starts: whoever could write into its folder later changes nothing of what it knows.
"""

import logging
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from client.approval import ApprovalRule
from client.handover.peer import Caller
from client.work.approval_record import Approval, Decision, State
from common.disk import write_whole
from common.errors import ApprovalError, ApprovalWaitingError, CheckpointError
from common.keys import PRIVATE, private_folder
from common.manifests import RoundManifest
from common.records import RecordError, read_record
from common.signing import Signed
from common.study import Study

log = logging.getLogger("fedscan.trainer")

FOLDER = "approvals"
MAX_BYTES = 8 * 1024 * 1024
MOST_WAITING = 1000  # studies without a word of the site's people: a coordinator could sign as many as it likes

Told = Callable[[Approval, State, str], None]


class Approvals:
    """What is approved at one site; may be used by any thread.

    Args:
        folder: HOME/trainer/approvals.
        rule: The section `approval` of site.yaml as it stands at any moment.
        told: Called when a study came first, and when a decision changed how it stands: (approval, state, who).

    Raises:
        CheckpointError: A file is damaged, or not the trainer's own.
    """

    def __init__(self, folder: Path, rule: Callable[[], ApprovalRule], told: Told = lambda *_: None) -> None:
        self._folder = folder
        self._rule = rule
        self._told = told
        self._lock = threading.RLock()
        self._known = {a.study: a for a in map(_read, sorted(folder.glob("[0-9a-f]*.json")))}

    def all(self) -> list[Approval]:
        """Every study, the one that was seen last first."""
        with self._lock:
            return sorted(self._known.values(), key=lambda a: (a.seen, a.study), reverse=True)

    def states(self, now: datetime | None = None) -> dict[str, State]:
        """How each study stands, by digest."""
        rule = self._rule()
        return {a.study: a.state(rule, now or datetime.now(UTC)) for a in self.all()}

    def find(self, what: str) -> Approval:
        """The study of this name, or whose digest begins so; raises ApprovalError."""
        found = [a for a in self.all() if a.name == what or (len(what) >= 4 and a.study.startswith(what.lower()))]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ApprovalError(
                f"no study {what} came to this site; fedscan site study list shows those that did. A study comes when "
                "the coordinator starts a run of it"
            )
        digests = ", ".join(a.study[:12] for a in found)
        raise ApprovalError(f"{what} are several studies ({digests}); give the digest's first letters")

    def check(self, study: Study, signed: Signed, manifest: RoundManifest) -> None:
        """Whether a task may be worked on; a study that never came before is kept, to be decided on.

        Args:
            study: The study, verified.
            signed: As it was signed.
            manifest: The task, verified.

        Raises:
            ApprovalError: It may not; the class says why.
            StorageError: The study could not be kept.
        """
        if manifest.kind == "result":
            return  # it asks for nothing, and what it brings may be kept
        rule = self._rule()
        self.see(study, signed, rule).check(manifest, rule, datetime.now(UTC))

    def see(self, study: Study, signed: Signed, rule: ApprovalRule) -> Approval:
        """What is known of a study; one that never came before is kept, to be decided on.

        Raises:
            ApprovalError: Too many wait already.
            StorageError: The study could not be kept.
        """
        with self._lock:
            return self._known.get(study.digest()) or self._seen(study, signed, rule)

    def again(self, manifest: RoundManifest, rule: ApprovalRule) -> None:
        """Whether a task that was accepted under `rule` may still be worked on; raises ApprovalError."""
        known = self._known.get(manifest.study)
        if known is not None and manifest.kind != "result":
            known.check_open(rule, datetime.now(UTC))

    def begun(self, manifest: RoundManifest) -> None:
        """Note, before the work on it begins, that a task was accepted; raises StorageError."""
        with self._lock:
            known = self._known.get(manifest.study)
            if known is not None and manifest.kind != "result":
                self._keep(known.begun(manifest))

    def decide(self, approval: Approval, decision: Decision, author: str) -> State:
        """Keep what somebody decided, and say how the study stands then.

        Args:
            approval: The study, from `find`.
            decision: What and by whom.
            author: Who wrote the study, as it says itself.

        Raises:
            ApprovalError: They wrote the study, or there is nothing to withdraw.
            StorageError: It could not be kept: nothing has changed.
        """
        if decision.what == "approve" and same_person(author, decision.who):
            raise ApprovalError(
                f"{decision.who} is named as the author of study {approval.name}; somebody else must approve it"
            )
        rule = self._rule()
        with self._lock:
            now = self._known[approval.study]
            if decision.what == "withdraw" and now.state(rule, decision.when) in ("waiting", "rejected", "withdrawn"):
                raise ApprovalError(
                    f"study {now.name} is not approved, so there is nothing to withdraw; to say no: fedscan site study "
                    f"reject {now.study[:12]}"
                )
            after = now.decided(decision)
            self._keep(after)
        state = after.state(rule, decision.when)
        log.info("study %s: %s by %s, now %s", after.name, decision.what, decision.who, state)
        self._told(after, state, decision.who)
        return state

    def approved_before(self, approval: Approval) -> Approval | None:
        """What a study is to be compared with: the last other one that was approved, of the same name if there is."""
        others = [a for a in self.all() if a.study != approval.study and a.consents()]
        others.sort(key=lambda a: (a.name == approval.name, a.consents()[-1].when), reverse=True)
        return others[0] if others else None

    def _seen(self, study: Study, signed: Signed, rule: ApprovalRule) -> Approval:
        if sum(not a.decisions for a in self._known.values()) >= MOST_WAITING:
            raise ApprovalWaitingError(f"{MOST_WAITING} studies wait here already; study {study.name} was not kept")
        now = datetime.now(UTC).replace(microsecond=0)
        made = Approval(study=study.digest(), name=study.name, signed=signed, seen=now)
        self._keep(made)
        state = made.state(rule, now)
        if state == "waiting":
            log.warning("study %s waits to be approved: fedscan site study show %s", study.name, made.study[:12])
        else:
            log.info("study %s is approved by the rule of site.yaml", study.name)
        self._told(made, state, "rule")
        return made

    def _keep(self, approval: Approval) -> None:
        if approval == self._known.get(approval.study):
            return
        private_folder(self._folder)
        text = approval.canonical()
        write_whole(self._folder / f"{approval.study}.json", lambda part: _write_private(part, text))
        self._known[approval.study] = approval


def decision(what: str, who: Caller, why: str = "", **limits: object) -> Decision:
    """What `who` decides now."""
    now = datetime.now(UTC).replace(microsecond=0)
    return Decision.model_validate(
        {"what": what, "who": who.name, "uid": who.uid, "when": now, "why": why, **limits}, strict=False
    )


def same_person(author: str, user: str) -> bool:
    """Whether a study's author is this user of the machine: by name, whatever its case, alone or before an @."""
    written = author.strip().casefold()
    return bool(written) and user.casefold() in (written, written.partition("@")[0])


def _write_private(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, PRIVATE)) as file:
        os.fchmod(file.fileno(), PRIVATE)
        file.write(data)


def _read(path: Path) -> Approval:
    wrong = f"{path} is damaged, or not the trainer's own; put it back from a backup. Without it, remove it: the study "
    wrong += "then waits to be approved anew"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            own = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022
            raw = file.read(MAX_BYTES + 1) if own else b""
        approval = read_record(Approval, raw, MAX_BYTES)
    except (OSError, RecordError):
        raise CheckpointError(wrong) from None
    if path.stem != approval.study:
        raise CheckpointError(wrong)
    return approval
