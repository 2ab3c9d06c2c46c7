"""What the link hands over, verified before anything is done with it: signatures, place in the run, bytes."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from client.handover.files import TASK, Arrays, Opened, Ref
from client.handover.mailbox import Mailbox
from client.identity import Identity, TrainerCredentials
from client.site import SiteConfig, site_of_home
from client.work.accepted import AcceptedRuns
from client.work.approvals import Approvals
from common.chain import Accepted, Checker
from common.errors import ApprovalError, FedscanError, PolicyError, WireError
from common.manifests import RoundManifest, arrays_sha256, read_assignment
from common.study import Study
from common.uplink import Uplink
from common.wire import Schema, Task, Terms


@dataclass(frozen=True)
class Offer:
    """A task that this site may work on. Its weights were not read yet.

    Attributes:
        accepted: The study, the order and the manifest, verified.
        config: The site's settings when it came.
        credentials: The site's identity when it came.
        schema: Of the study's net.
        task: What the ClientApp is asked, made from the manifest alone.
    """

    accepted: Accepted
    config: SiteConfig
    credentials: TrainerCredentials
    schema: Schema
    task: Task
    _file: Opened | None = field(repr=False, default=None)

    @property
    def study(self) -> Study:
        """What is learnt."""
        return self.accepted.study

    @property
    def uplink(self) -> Uplink:
        """What a reply to it holds, if it asks for training."""
        return Uplink.of(self.study, self.schema)

    @property
    def manifest(self) -> RoundManifest:
        """What is asked."""
        return self.accepted.manifest

    @property
    def key(self) -> str:
        """Names what the result depends on, apart from the site's own cases."""
        return f"{self.manifest.core()} after {self.task.acknowledged}"

    def same(self, other: "Offer") -> bool:
        """Whether a reply to the one answers the other."""
        return self.manifest.core() == other.manifest.core()

    def later(self, other: "Offer") -> bool:
        """Whether this task came after `other`; of one run it did, or it would have been refused."""
        if self.manifest.run == other.manifest.run:
            return True
        return self.accepted.order.issued > other.accepted.order.issued

    def arrays(self) -> Arrays:
        """The weights; raises WireError unless they are the very bytes that the manifest names."""
        assert self._file is not None  # noqa: S101 -- for the type checker
        arrays = self._file.arrays()
        if self.manifest.base is not None and arrays_sha256(arrays) != self.manifest.base:
            raise WireError(f"{self.manifest.task}: the weights are not the ones of the manifest")
        return arrays


class RefusedTask(Exception):  # noqa: N818 - the error is within
    """A task of this coordinator that this site does not work on: it is told so, signed.

    Attributes:
        error: Why.
        manifest: The task, verified.
        credentials: Of the site.
    """

    def __init__(self, error: FedscanError, manifest: RoundManifest, credentials: TrainerCredentials) -> None:
        super().__init__(str(error))
        self.error, self.manifest, self.credentials = error, manifest, credentials


class Intake:
    """Where tasks come in.

    Args:
        home: The site's folder. Its files are read at each task: a renewed certificate needs no restart.
        approvals: What the site's people decided.
    """

    def __init__(self, home: Path, approvals: Approvals) -> None:
        self._home = home
        self._approvals = approvals
        self._mailbox = Mailbox(home)
        self._accepted = AcceptedRuns(home / "trainer" / "accepted.json")
        self._schema: tuple[str, Schema] = ("", Schema(()))

    @contextlib.contextmanager
    def open(self, ref: Ref) -> Iterator[Offer]:
        """The task in the file that `ref` names; what it asks is checked, its weights wait in the open file.

        Raises:
            SignatureError: It is not signed, altered, replayed, or from a fork.
            RefusedTask: The study asks for more than site.yaml lets out, or its people do not let it run.
            WireError: The file is not the one that was named, or does not hold the bytes of the study's net.
            StudyError: site.yaml is wrong.
            IdentityError: The site's keys are missing.
            CheckpointError: The memory of accepted tasks is damaged.
        """
        if ref.name != TASK:
            raise WireError(f"{ref.name} is no task")
        config, credentials = site_of_home(self._home), Identity(self._home).trainer_credentials()
        checker = Checker(credentials.site, credentials.signer)
        with self._mailbox.open(ref) as file:
            if set(file.metadata) != {"assignment"}:
                raise WireError("the task's file holds something else than an assignment")
            assignment = read_assignment(file.metadata["assignment"].encode())
            accepted = checker.check(self._accepted.known(), assignment, datetime.now(UTC))
            schema = self._schema_of(accepted.study)
            try:
                if accepted.manifest.kind != "result":
                    # First of all, so that the site's people find also what the policy refuses.
                    self._approvals.see(accepted.study, assignment.study, config.approval)
                config.policy.check_study(accepted.study, Uplink.of(accepted.study, schema).nbytes)
                self._approvals.check(accepted.study, assignment.study, accepted.manifest)
            except (PolicyError, ApprovalError) as error:
                raise RefusedTask(error, accepted.manifest, credentials) from None
            if file.sizes != ({} if accepted.manifest.base is None else schema.sizes):
                raise WireError(f"{accepted.manifest.task}: its arrays are not the ones of the study's schema")
            yield Offer(accepted, config, credentials, schema, _task(accepted.manifest, credentials.site), file)

    def keep(self, offer: Offer) -> None:
        """Put on disk that the task was accepted, before the work on it begins; raises StorageError."""
        self._approvals.begun(offer.manifest)
        if offer.accepted.known != self._accepted.known():
            self._accepted.keep(offer.accepted.known)

    def runs_of(self, study: str) -> list[str]:
        """The runs of a study, by its digest, of which a task was ever accepted; raises CheckpointError."""
        return [run for run, known in self._accepted.known().runs.items() if known.study == study]

    def _schema_of(self, study: Study) -> Schema:
        digest = study.digest()
        if digest != self._schema[0]:
            self._schema = (digest, Schema.of(study))
        return self._schema[1]


def _task(manifest: RoundManifest, site: str) -> Task:
    try:
        return Task(
            run=manifest.run, round=manifest.round, kind=manifest.kind, part=manifest.part,
            acknowledged=manifest.roster[site].round, best=manifest.best, terms=Terms.model_validate(manifest.terms),
        )  # fmt: skip
    except ValidationError:
        raise WireError(f"{manifest.task} has terms that this version of fedscan does not know: update it") from None
