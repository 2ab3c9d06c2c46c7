"""The process with the scans and no network: takes tasks from the link, works, and hands back signed replies.

Everything that it promises is on disk first. Killed at any moment it goes on as follows: before a task was accepted,
the task is new; after that, the task is accepted again because it is the same; in the middle of a round, the round goes
on where it was written down last; after the reply was written, the reply is there. All ways end with the same update.
"""

import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from client.device import pick_device
from client.handover.control import BEAT, Progress, TrainerBusyError, TrainerStatus, serve
from client.handover.mailbox import Arrays, Mailbox, Ref
from client.handover.operators import Operations, serve_operators
from client.hours import open_at
from client.identity import Identity, TrainerCredentials
from client.site import SiteConfig, site_of_home
from client.work.approval_record import Approval, State
from client.work.approvals import FOLDER, Approvals
from client.work.audit import SAID, about
from client.work.book_desk import BookDesk
from client.work.books import Books
from client.work.discretion import Discretion
from client.work.leaving import drop_held, forget, take_back
from client.work.pause import Pause, Paused
from client.work.replies import software, stored_reply, write_refusal, write_reply
from client.work.study_desk import StudyDesk
from client.work.tasks import Intake, Offer, RefusedTask
from client.work.workshop import StopWork, Workshop
from common.disk import not_written
from common.errors import (
    ApprovalError,
    CheckpointError,
    FedscanError,
    IdentityError,
    PolicyError,
    SignatureError,
    StorageError,
    StudyError,
)
from common.lock import alone
from common.log import Form, start_log
from common.manifests import RoundManifest

log = logging.getLogger("fedscan.trainer")


@dataclass
class _Job:
    """One task from its acceptance to its end."""

    offer: Offer
    arrays: Arrays
    since: datetime
    done: int = 0
    of: int = 0
    state: Literal["waiting", "working", "done", "refused", "dropped"] = "waiting"
    reply: Ref | None = None
    code: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "refused", "dropped")

    def message(self) -> Progress:
        state: Literal["working", "done", "refused"] = "working"
        if self.state == "done" or self.state == "refused":
            state = self.state
        return Progress(state=state, done=self.done, of=self.of, reply=self.reply, code=self.code)


class Trainer:
    """A site's trainer. `run` does the work in its caller's thread; the rest may be called by any.

    Args:
        home: The site's folder.

    Attributes:
        approvals: What the site's people decided.
        books: What happened here, and what left.

    Raises:
        AuditError: The audit log was altered.
        StorageError: It cannot be written.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._mailbox = Mailbox(home)
        self.books = Books(home / "trainer")
        self._permits = ""  # hash of the settings that say what may happen here, as they were seen last
        self._windows: tuple[str, ...] = ()
        self._put_off: Ref | None = None  # a task that waits for its hours
        self.approvals = Approvals(home / "trainer" / FOLDER, lambda: site_of_home(home).approval, self._decided)
        self.pauses = Pause(home / "trainer", self._mailbox, self._sift)
        self._intake = Intake(home, self.approvals)
        self._workshop = Workshop(home, self._tell, self._unwanted)
        self._accepting = threading.Lock()
        self._changed = threading.Condition()
        self._stopping = False
        self._leaving = [study for study, state in self._states().items() if state == "withdrawn"]
        self._job: _Job | None = None  # accepted last
        self._running: _Job | None = None
        self._last_code: str | None = None

    def work(self, ref: Ref) -> Iterator[Progress]:
        """Work on the task that `ref` names, and tell how it goes on; the same task again joins in, or has its reply.

        Raises:
            TrainerBusyError: Another task is worked on that is not older, or a later one came; or nothing is worked
                on now, because the site is paused or it is not the time.
        """
        try:
            with self._accepting:
                self._check_now(ref)
                job = self._take(ref)
        except TrainerBusyError:
            raise
        except RefusedTask as refused:
            log.error("refused: %s: %s: %s", refused.manifest.task, refused.error.code, refused.error)
            yield self._refusal(refused.manifest, refused.credentials, refused.error)
            return
        except FedscanError as error:
            self._refuse(error)
            log.error("refused: %s: %s", error.code, error)
            yield Progress(state="refused", code=error.code)
            return
        except Exception:
            self._refuse(FedscanError("unexpected"))
            log.exception("a task was refused because of an unexpected error")
            yield Progress(state="refused", code=FedscanError.code)
            return
        yield from self._follow(job)

    def status(self) -> TrainerStatus:
        """What the trainer is doing."""
        with self._changed:
            job, idle = self._job, self._job is None or self._job.ended
            code = self._last_code
        paused, closed = self.pauses.now, not open_at(self._windows, datetime.now())
        said = TrainerStatus(
            version=software(),
            site=self._site(),
            device=self._device(),
            last_code=code,
            waiting=list(self._states().values()).count("waiting"),
            paused=paused.since if paused else None,
            hours=self._windows if closed else (),
        )
        if job is None:
            return said
        manifest = job.offer.manifest
        return said.model_copy(
            update={
                "study": job.offer.study.name, "digest": manifest.study, "run": manifest.run, "round": manifest.round,
                "kind": manifest.kind, "done": job.done, "of": job.of, "since": None if idle else job.since,
            }
        )  # fmt: skip

    def operations(self) -> Operations:
        """What the site's operators may ask."""
        operations = Operations()
        StudyDesk(self._home, self.approvals, self.ended).open(operations)
        BookDesk(self._home / "trainer", self.pause, self.unpause).open(operations)
        return operations

    def ended(self, study: str) -> None:
        """The study of this digest may not run any more: what is worked on for it stops, and no more of it leaves."""
        with self.pauses.gate:
            take_back(self._mailbox, study)
        with self._changed:
            self._leaving.append(study)
            self._changed.notify_all()

    def run(self) -> None:
        """Do one task after the other until `stop` is called."""
        self._start()
        while not self._stopping:
            self._leave()
            with self._changed:
                job = self._job
                if job is None or job.state != "waiting":
                    # Not for ever: a signal's handler may not take the lock that it would need to wake us.
                    self._changed.wait(0.2)
                    continue
                job.state, self._running = "working", job
            self._do(job)
        with self._changed:
            self._changed.notify_all()
        self.books.audit.append("stopped")

    def stop(self) -> None:
        """End `run` after the step or case in progress, which is written down; may be called by a signal's handler."""
        self._stopping = True

    def pause(self, who: str, why: str = "") -> Paused:
        """Stop the work at the end of its step or case; on return the link can open no reply any more.

        Args:
            who: Who asks for it.
            why: In their words.

        Raises:
            StorageError: It holds, but could not be written down.
        """
        new = self.pauses.now is None
        try:
            paused = self.pauses.begin(who, why)
        finally:
            with self._changed:
                self._changed.notify_all()
        if new:
            self.books.audit.append("paused", who=who, why=why or None)
            log.info("paused by %s", who)
        return paused

    def unpause(self, who: str, why: str = "") -> None:
        """Go on where the work stood; raises StorageError."""
        if self.pauses.now is not None:
            self.books.audit.append("unpaused", who=who, why=why or None)
            log.info("unpaused by %s", who)
        self.pauses.end()

    def refused(self) -> None:
        """Something that is no request came on the link's socket."""
        self.books.audit.refused("E_WIRE", "socket")

    def _decided(self, approval: Approval, state: State, who: str) -> None:
        """A study came first, or was decided on."""
        if not approval.decisions:
            self.books.audit.append(state, who=who, study=approval.study)
            return
        said = approval.decisions[-1]
        self.books.audit.append(
            SAID[said.what], who=who, study=approval.study, until=said.until, rounds=said.rounds, why=said.why or None,
            reason="waits for another" if state == "waiting" else said.purpose,
        )  # fmt: skip

    def _check_now(self, ref: Ref) -> None:
        """Raises TrainerBusyError where nothing may be worked on now."""
        if self.pauses.now is not None:
            raise TrainerBusyError("the site is paused")
        if ref == self._put_off and not open_at(self._windows, datetime.now()):
            raise TrainerBusyError("it is not the time to work (site.yaml: hours)")

    def _check_machine(self, ref: Ref, config: SiteConfig) -> None:
        """Raises TrainerBusyError outside the site's hours, StorageError where the disk has less than it wants."""
        if not open_at(config.hours, datetime.now()):
            self._put_off = ref
            raise TrainerBusyError("it is not the time to work (site.yaml: hours)")
        free, wanted = shutil.disk_usage(self._home).free / 1e9, config.limits.disk
        if free < wanted:
            raise StorageError(
                f"{self._home}: {free:.1f} GB are free, {wanted:g} must stay free (site.yaml: limits: disk). Make "
                "room: the task comes again"
            )

    def _start(self) -> None:
        try:
            self._seen(site_of_home(self._home), "started")
        except StudyError as error:
            # Each task will be refused for it, until it is put right.
            log.error("%s: %s", error.code, error)
            self.books.audit.append("started")

    def _seen(self, config: SiteConfig, event: Literal["started", "settings"] = "settings") -> None:
        """Write down which settings hold, when they are other ones than before."""
        permits, self._windows = sha256(config.permits()).hexdigest(), config.hours
        if permits != self._permits:
            self._permits = permits
            self.books.audit.append(event, settings=permits)

    def _take(self, ref: Ref) -> _Job:
        """The job for a task: the one that is under way, one that is done already, or a new one."""
        with self._intake.open(ref) as offer:
            self._seen(offer.config)
            before = self._job
            if before is not None and not before.ended and before.offer.same(offer):
                self._intake.keep(offer)
                return before
            job = _Job(offer, {}, datetime.now(UTC))
            stored = stored_reply(self._mailbox, offer)
            if stored is not None:
                self._intake.keep(offer)
                job.state, job.reply = "done", stored
                self.books.audit.noted("sent again", **about(offer.manifest))
                return job
            if before is not None and not before.ended and not offer.later(before.offer):
                raise TrainerBusyError(f"{before.offer.manifest.task} is worked on")
            self._check_machine(ref, offer.config)
            job.arrays = offer.arrays()
            self._intake.keep(offer)
            self.books.audit.append("accepted", **about(offer.manifest))
            log.info("accepted: %s, manifest %d", offer.manifest.task, offer.manifest.sequence)
            with self._changed:
                if before is not None and before.state == "waiting":
                    before.state = "dropped"
                self._job = job
                self._changed.notify_all()
            return job

    def _follow(self, job: _Job) -> Iterator[Progress]:
        while True:
            with self._changed:
                message = job.message()
                dropped = job.state == "dropped"
            # What ends with the process is not refused: it goes on after the restart.
            if self._stopping and message.state == "working":
                return
            if dropped:
                raise TrainerBusyError("a later task came")
            yield message
            if message.state != "working":
                return
            with self._changed:
                self._changed.wait_for(lambda: job.ended or self._stopping, BEAT)

    def _do(self, job: _Job) -> None:
        """One job to its end, whatever happens in it."""
        try:
            outcome = self._workshop.do(job.offer, job.arrays)
            self._check_approval(job)
            reply = write_reply(self._mailbox, job.offer, outcome, self.books)
            if outcome.error is None and job.offer.manifest.kind == "train":
                self._workshop.finished()
            if not self.pauses.release(reply.name, lambda: self._check_approval(job)):
                raise StopWork
            self._end(job, "done", reply, outcome.error)
            log.info("%s: %s", job.offer.manifest.task, outcome.error or "done")
        except StopWork:
            try:
                self._check_approval(job)
            except ApprovalError as error:
                self._part(job, error)
                return
            self._end(job, "dropped")
            log.info("%s: stopped", job.offer.manifest.task)
        except ApprovalError as error:
            self._part(job, error)
        except FedscanError as error:
            self._end(job, "refused", code=error.code)
            self.books.audit.refused(error.code, event="failed", **about(job.offer.manifest))
            log.error("%s: %s: %s", job.offer.manifest.task, error.code, error)
        except Exception:
            self._end(job, "refused", code=FedscanError.code)
            self.books.audit.refused(FedscanError.code, event="failed", **about(job.offer.manifest))
            log.exception("unexpected error")

    def _end(
        self, job: _Job, state: Literal["done", "refused", "dropped"], reply: Ref | None = None, code: str | None = None
    ) -> None:
        with self._changed:
            job.state, job.reply, job.arrays = state, reply, {}
            job.code = code if state == "refused" else None
            self._running = None
            if state != "dropped":
                self._last_code = code
            self._changed.notify_all()

    def _part(self, job: _Job, error: ApprovalError) -> None:
        """End a job whose approval ended while it was worked on."""
        log.warning("%s: %s: %s", job.offer.manifest.task, error.code, error)
        try:
            told = self._refusal(job.offer.manifest, job.offer.credentials, error)
        except TrainerBusyError:
            self._end(job, "dropped")  # paused as well: the coordinator is told when the task comes again
            return
        self._end(job, "refused", told.reply, error.code)

    def _refusal(self, manifest: RoundManifest, who: TrainerCredentials, error: FedscanError) -> Progress:
        """The signed word that a task is not worked on; unsigned where the disk is full."""
        self._refuse(error, manifest)
        try:
            ref = write_refusal(self._mailbox, manifest, who, error.code, self.books.audit.head)
            if not self.pauses.release(ref.name):
                raise TrainerBusyError("the site is paused")
        except StorageError as full:
            log.error("%s: %s", full.code, full)
            ref = None
        return Progress(state="refused", code=error.code, reply=ref)

    def _check_approval(self, job: _Job) -> None:
        """Raises ApprovalError once the study may not run any more."""
        self.approvals.again(job.offer.manifest, job.offer.config.approval)

    def _leave(self) -> None:
        """Remove what is kept of studies whose approval was withdrawn; nothing is worked on now."""
        while self._leaving:
            study = self._leaving[0]
            before = self._job
            busy = before is not None and not before.ended and before.offer.manifest.study != study
            try:
                forget(self._home, self._intake.runs_of(study), None if busy else self._workshop.midround)
                take_back(self._mailbox, study)
            except (OSError, CheckpointError) as error:
                log.error("what is kept of study %s was not removed: %s", study[:12], error)
            self._leaving.pop(0)

    def _sift(self) -> None:
        """Remove what waits to leave and belongs to a study that may not run any more."""
        states = self._states()
        try:
            drop_held(self._mailbox, lambda study: states.get(study) != "approved")
        except OSError as error:
            raise not_written(self._mailbox.folder, error) from None

    def _states(self) -> dict[str, State]:
        """How each study stands; nothing while site.yaml is wrong."""
        try:
            return self.approvals.states()
        except StudyError:
            return {}

    def _refuse(self, error: FedscanError, manifest: RoundManifest | None = None) -> None:
        reason = str(error.reason) if isinstance(error, SignatureError | PolicyError) else None
        self.books.audit.refused(error.code, reason, **({} if manifest is None else about(manifest)))
        with self._changed:
            self._last_code = error.code

    def _tell(self, done: int, of: int) -> None:
        """Called by the work after each step and case."""
        job = self._running
        if job is not None:
            job.done, job.of = done, of

    def _unwanted(self) -> bool:
        job = self._running
        if self._stopping or job is not self._job or self.pauses.now is not None:
            return True
        if not open_at(self._windows, datetime.now()):
            return True
        try:
            if job is not None:
                self._check_approval(job)
        except ApprovalError:
            return True
        return False

    def _site(self) -> str | None:
        try:
            return Identity(self._home).federation().site
        except IdentityError:
            return None

    def _device(self) -> str:
        try:
            return str(pick_device(site_of_home(self._home).device))
        except StudyError:
            return "unknown"


def run(home: Path, form: Form = "text") -> None:
    """Be the trainer of the site in `home`, until SIGTERM or SIGINT.

    Raises:
        IdentityError: The site has not joined a federation, or its keys are missing.
        StudyError: site.yaml is wrong.
        FedscanError: Another trainer works here already, or no socket can be made.
    """
    start_log(form)
    logging.captureWarnings(True)
    who, config = Identity(home).trainer_credentials(), site_of_home(home)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Discretion(home / "trainer"))
    mailbox = Mailbox(home)
    mailbox.make()
    twice = FedscanError(f"a trainer of {home} is running already; stop it with: fedscan site stop")
    with alone(home / "trainer" / "lock", twice):
        trainer = Trainer(home)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: trainer.stop())
        group = config.operators.group
        with serve(mailbox.socket, trainer, trainer.refused), serve_operators(home, group, trainer.operations()):
            log.info("trainer of %s ready on %s", who.site, pick_device(config.device))
            trainer.run()
    log.info("trainer of %s stopped", who.site)
