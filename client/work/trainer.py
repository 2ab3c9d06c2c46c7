"""A site's trainer: takes tasks from the link, works, and hands back signed replies.

Everything that it promises is on disk first. Killed at any moment it goes on as follows: before a task was accepted,
the task is new; after that, the task is accepted again because it is the same; in the middle of a round, the round goes
on where it was written down last; after the reply was written, the reply is there. All ways end with the same update.
"""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from client.handover.control import BEAT, Progress, TrainerBusyError, TrainerStatus
from client.handover.files import Ref
from client.handover.mailbox import Mailbox
from client.handover.operators import Operations
from client.site import site_of_home
from client.work.approval_record import Approval, State
from client.work.approvals import FOLDER, Approvals
from client.work.audit import SAID, about
from client.work.book_desk import BookDesk
from client.work.books import Books
from client.work.brakes import Brakes
from client.work.job import Job
from client.work.job import State as JobState
from client.work.leaving import Departures, take_back
from client.work.refusals import Refusals
from client.work.replies import stored_reply, write_reply
from client.work.status import status_of
from client.work.study_desk import StudyDesk
from client.work.tasks import Intake, RefusedTask
from client.work.workshop import StopWork, Workshop
from common.errors import (
    ApprovalError,
    FedscanError,
    StudyError,
)

log = logging.getLogger("fedscan.trainer")


class Trainer:
    """A site's trainer. `run` does the work in its caller's thread; the rest may be called by any.

    Args:
        home: The site's folder.

    Attributes:
        approvals: What the site's people decided.
        books: What happened here, and what left.
        brakes: What holds the work up.

    Raises:
        AuditError: The audit log was altered.
        StorageError: It cannot be written.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._mailbox = Mailbox(home)
        self.books = Books(home / "trainer")
        self.approvals = Approvals(home / "trainer" / FOLDER, lambda: site_of_home(home).approval, self._decided)
        self._departures = Departures(home, self._mailbox, self._states)
        self._changed = threading.Condition()
        self.brakes = Brakes(home, self._mailbox, self.books.audit, self._departures.sift, self._wake)
        self._refusals = Refusals(self._mailbox, self.books.audit, self.brakes.release)
        self._intake = Intake(home, self.approvals)
        self._workshop = Workshop(home, self._tell, self._unwanted)
        self._accepting = threading.Lock()
        self._stopping = False
        self._job: Job | None = None  # accepted last
        self._running: Job | None = None

    def work(self, ref: Ref) -> Iterator[Progress]:
        """Work on the task that `ref` names, and tell how it goes on; the same task again joins in, or has its reply.

        Raises:
            TrainerBusyError: Another task is worked on that is not older, or a later one came; or nothing is worked
                on now, because the site is paused or it is not the time.
        """
        try:
            with self._accepting:
                self.brakes.check_now(ref)
                job = self._take(ref)
        except TrainerBusyError:
            raise
        except RefusedTask as refused:
            log.error("refused: %s: %s: %s", refused.manifest.task, refused.error.code, refused.error)
            yield self._refusals.signed(refused.manifest, refused.credentials, refused.error)
            return
        except FedscanError as error:
            self._refusals.note(error)
            log.error("refused: %s: %s", error.code, error)
            yield Progress(state="refused", code=error.code)
            return
        except Exception:
            self._refusals.note(FedscanError("unexpected"))
            log.exception("a task was refused because of an unexpected error")
            yield Progress(state="refused", code=FedscanError.code)
            return
        yield from self._follow(job)

    def status(self) -> TrainerStatus:
        """What the trainer is doing."""
        with self._changed:
            job = self._job
        waiting = list(self._states().values()).count("waiting")
        return status_of(self._home, job, self.brakes, waiting, self._refusals.last_code)

    def operations(self) -> Operations:
        """What the site's operators may ask."""
        operations = Operations()
        StudyDesk(self._home, self.approvals, self.ended).open(operations)
        BookDesk(self._home / "trainer", self.brakes.pause, self.brakes.unpause).open(operations)
        return operations

    def ended(self, study: str) -> None:
        """The study of this digest may not run any more: what is worked on for it stops, and no more of it leaves."""
        with self.brakes.gate:
            take_back(self._mailbox, study)
        self._departures.add(study)
        self._wake()

    def run(self) -> None:
        """Do one task after the other until `stop` is called."""
        self._start()
        while not self._stopping:
            self._departures.carry_out(self._intake.runs_of, self._midround_of)
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

    def _start(self) -> None:
        try:
            self.brakes.seen(site_of_home(self._home), "started")
        except StudyError as error:
            # Each task will be refused for it, until it is put right.
            log.error("%s: %s", error.code, error)
            self.books.audit.append("started")

    def _take(self, ref: Ref) -> Job:
        """The job for a task: the one that is under way, one that is done already, or a new one."""
        with self._intake.open(ref) as offer:
            self.brakes.seen(offer.config)
            before = self._job
            if before is not None and not before.ended and before.offer.same(offer):
                self._intake.keep(offer)
                return before
            job = Job(offer, {}, datetime.now(UTC))
            stored = stored_reply(self._mailbox, offer)
            if stored is not None:
                self._intake.keep(offer)
                job.state, job.reply = "done", stored
                self.books.audit.noted("sent again", **about(offer.manifest))
                return job
            if before is not None and not before.ended and not offer.later(before.offer):
                raise TrainerBusyError(f"{before.offer.manifest.task} is worked on")
            self.brakes.check_machine(ref, offer.config)
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

    def _follow(self, job: Job) -> Iterator[Progress]:
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

    def _do(self, job: Job) -> None:
        """One job to its end, whatever happens in it."""
        try:
            outcome = self._workshop.do(job.offer, job.arrays)
            self._check_approval(job)
            reply = write_reply(self._mailbox, job.offer, outcome, self.books)
            if outcome.error is None and job.offer.manifest.kind == "train":
                self._workshop.finished()
            if not self.brakes.release(reply.name, lambda: self._check_approval(job)):
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

    def _end(self, job: Job, state: JobState, reply: Ref | None = None, code: str | None = None) -> None:
        with self._changed:
            job.state, job.reply, job.arrays = state, reply, {}
            job.code = code if state == "refused" else None
            self._running = None
            if state != "dropped":
                self._refusals.last_code = code
            self._changed.notify_all()

    def _part(self, job: Job, error: ApprovalError) -> None:
        """End a job whose approval ended while it was worked on."""
        log.warning("%s: %s: %s", job.offer.manifest.task, error.code, error)
        try:
            told = self._refusals.signed(job.offer.manifest, job.offer.credentials, error)
        except TrainerBusyError:
            self._end(job, "dropped")  # paused as well: the coordinator is told when the task comes again
            return
        self._end(job, "refused", told.reply, error.code)

    def _check_approval(self, job: Job) -> None:
        """Raises ApprovalError once the study may not run any more."""
        self.approvals.again(job.offer.manifest, job.offer.config.approval)

    def _midround_of(self, study: str) -> Path | None:
        """Where the open round lies, unless it is another study's."""
        job = self._job
        busy = job is not None and not job.ended and job.offer.manifest.study != study
        return None if busy else self._workshop.midround

    def _states(self) -> dict[str, State]:
        """How each study stands; nothing while site.yaml is wrong."""
        try:
            return self.approvals.states()
        except StudyError:
            return {}

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _tell(self, done: int, of: int) -> None:
        """Called by the work after each step and case."""
        job = self._running
        if job is not None:
            job.done, job.of = done, of

    def _unwanted(self) -> bool:
        job = self._running
        if self._stopping or job is not self._job or self.brakes.hold:
            return True
        try:
            if job is not None:
                self._check_approval(job)
        except ApprovalError:
            return True
        return False
