"""What a site accepts: the pure check of an assignment against what the site accepted before.

Nothing here reads a clock, a file or a network: the caller gives the time and what is known, and keeps what comes
back on disk before it starts the task.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AwareDatetime, Field

from common.errors import SignatureError
from common.manifests import (
    LINK,
    Assignment,
    RoundManifest,
    RunOrder,
    genesis,
    history_bytes,
    link,
    verified_manifest,
    verified_order,
    verified_study,
)
from common.records import Record, RunName, Sha256
from common.signing import Refusal, key_id, key_of
from common.study import Study

# A site whose clock is wrong by less than this neither refuses a good order nor runs an old one for long.
CLOCK_SLACK = timedelta(hours=24)

Position = tuple[int, int, int]


class Known(Record):
    """What a site accepted last of one run.

    Attributes:
        study: The run's study.
        order_issued: When the newest order of the run was signed.
        sequence: Place of the last manifest in the run's chain.
        head: Head of the chain after it, in hex.
        position: Order of the last task among the run's tasks; none before the first.
        core: What a reply to that task depends on.
    """

    study: Sha256
    order_issued: AwareDatetime
    sequence: int = Field(ge=1)
    head: Sha256
    position: tuple[int, int, int] | None = None
    core: Sha256 | None = None


class KnownRuns(Record):
    """All runs of which a site ever accepted a task. Small, and never forgotten: a forgotten run could be replayed."""

    version: Literal[1] = 1
    runs: dict[RunName, Known] = Field({})


@dataclass(frozen=True)
class Accepted:
    """An assignment that may be worked on.

    Attributes:
        study: The study, verified.
        order: The run's order.
        manifest: The task.
        again: The task was accepted before, with the same base: answer with the stored reply if there is one.
        known: What the site must have on disk before it begins.
    """

    study: Study
    order: RunOrder
    manifest: RoundManifest
    again: bool
    known: KnownRuns


class Checker:
    """Says of each assignment whether it is what a site may be asked; whether its people let it run is theirs to say.

    Args:
        site: The site's name.
        signer: The coordinator's study-signing key, as installed by `fedscan site join`.
    """

    def __init__(self, site: str, signer: Ed25519PublicKey) -> None:
        self._site = site
        self._signer = signer
        self._coordinator = key_id(signer)

    def check(self, known: KnownRuns, assignment: Assignment, now: datetime) -> Accepted:
        """Check every signature, the order, and the place of the manifest in its run.

        Args:
            known: What was accepted before.
            assignment: What came with the task.
            now: The time, with its zone.

        Raises:
            SignatureError: With its own reason for each way in which an assignment can be wrong (`Refusal`).
        """
        study = verified_study(assignment.study, self._signer, self._coordinator)
        order = verified_order(assignment.order, self._signer, self._coordinator)
        before = known.runs.get(order.run)
        self._check_order(study, order, before, now)
        manifest = verified_manifest(assignment.manifest, key_of(order.round_key), self._coordinator)
        if manifest.kind == "result":
            _check_result(study, manifest, before)
        self._check_manifest(order, manifest)
        head = _check_chain(manifest, assignment, before)
        position = _position(manifest)
        again = _check_position(manifest, position, before)
        if position is None and before is not None:
            position, core = before.position, before.core
        else:
            core = manifest.core() if position else None
        now_known = Known(
            study=order.study, order_issued=order.issued, sequence=manifest.sequence, head=head.hex(),
            position=position, core=core,
        )  # fmt: skip
        return Accepted(study, order, manifest, again, KnownRuns(runs={**known.runs, order.run: now_known}))

    def _check_order(self, study: Study, order: RunOrder, before: Known | None, now: datetime) -> None:
        digest = study.digest()
        if order.study != digest:
            raise SignatureError(Refusal.STUDY, f"the order of run {order.run} is for another study")
        if before is not None and before.study != digest:
            raise SignatureError(Refusal.FORK, f"run {order.run} was begun with another study")
        if before is not None and order.issued < before.order_issued:
            raise SignatureError(Refusal.OLDER, f"run {order.run} has a newer order than the one that came")
        if now > order.valid_until + CLOCK_SLACK:
            raise SignatureError(Refusal.EXPIRED, f"the order of run {order.run} ended on {order.valid_until:%Y-%m-%d}")

    def _check_manifest(self, order: RunOrder, manifest: RoundManifest) -> None:
        if manifest.run != order.run:
            raise SignatureError(Refusal.RUN, f"a manifest of run {manifest.run} came with the order of {order.run}")
        if manifest.study != order.study:
            raise SignatureError(Refusal.STUDY, f"the manifest of run {manifest.run} is for another study")
        if manifest.round > order.max_rounds:
            raise SignatureError(Refusal.ROUNDS, f"round {manifest.round} was asked; {order.max_rounds} were ordered")
        if self._site not in manifest.roster:
            raise SignatureError(Refusal.ROSTER, f"{self._site} is not on the roster of this task")


def _check_result(study: Study, manifest: RoundManifest, before: Known | None) -> None:
    """A result asks for no work, so whether the study may (still) run here does not matter: it may have ended."""
    if before is None:
        raise SignatureError(Refusal.TASK, f"{manifest.task} is of a run in which this site took no part")
    if manifest.figures is None or not manifest.figures.fits(len(study.data.labels)):
        raise SignatureError(Refusal.FORM, f"{manifest.task}: its figures are of other labels than the study's")


def _check_chain(manifest: RoundManifest, assignment: Assignment, before: Known | None) -> bytes:
    """Head of the chain after `manifest`, which must continue what was accepted before, or be it again."""
    history = history_bytes(assignment.history)
    if len(history) != LINK * (manifest.sequence - 1):
        raise SignatureError(Refusal.FORM, f"the history of run {manifest.run} does not lead to this manifest")
    if before is not None and manifest.sequence < before.sequence:
        raise SignatureError(
            Refusal.OLDER, f"run {manifest.run}: manifest {manifest.sequence} came after {before.sequence}"
        )
    links = [*(history[i : i + LINK] for i in range(0, len(history), LINK)),
             sha256(assignment.manifest.body.encode()).digest()]  # fmt: skip
    previous = head = genesis(manifest.run, manifest.study)
    for number, body in enumerate(links, start=1):
        previous, head = head, link(head, body)
        if before is not None and number == before.sequence and head.hex() != before.head:
            raise SignatureError(
                Refusal.FORK, f"run {manifest.run} has another manifest {number} than the one that was accepted here"
            )
    if previous.hex() != manifest.previous:
        raise SignatureError(Refusal.FORK, f"the history of run {manifest.run} is not the one that was signed")
    return head


def _position(manifest: RoundManifest) -> Position | None:
    """Where a task stands among those of its run, the result last; none for `join`, which may come at any time."""
    if manifest.kind == "join":
        return None
    if manifest.kind == "result":
        return (2, 0, 0)
    if manifest.part == "test":
        # Once, at the end, with the weights of whatever round was the best.
        return (1, 0, 0)
    return (0, manifest.round, 1 if manifest.kind == "evaluate" else 0)


def _check_position(manifest: RoundManifest, position: Position | None, before: Known | None) -> bool:
    """Whether the task was accepted before; raises SignatureError for an older task and for another base."""
    if position is None or before is None or before.position is None or position > before.position:
        return False
    if position < before.position:
        raise SignatureError(Refusal.OLDER, f"{manifest.task} came after a later task of the run")
    if manifest.core() != before.core:
        raise SignatureError(Refusal.FORK, f"{manifest.task} came again with another base or other terms")
    return True
