"""The runs of a coordinator, on disk: what waits, what goes on, what ended and why.

    runs/NAME/run.json       the run's record, written whole or not at all
    runs/NAME/signed.json    the signed study and its order
    runs/NAME/...            what the rounds leave: events, checkpoints, manifests

One run goes on at a time; the others wait in the order in which they were put in. A run that is `running` while no
process works on it was begun by one that died: it goes on first.
"""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field

from common.disk import write_whole
from common.errors import CheckpointError, FedscanError, IdentityError, StudyError
from common.keys import PRIVATE, private_folder, read_small
from common.manifests import RunOrder, SignedStudy, read_signed_study, verified_order
from common.records import Record, RecordError, RunName, Sha256, read_record
from common.section import Name
from common.signing import MAX_SIGNED_BYTES
from server.enrolment.identity import Coordinator

MAX_RECORD_BYTES = 256 * 1024
WHY = 4000  # characters that are kept of a reason

Status = Literal["queued", "running", "finished", "aborted", "failed"]
GOES_ON = ("aborted", "failed")
"""Runs that `run resume` takes up again."""
ENDED = ("finished", *GOES_ON)


class RunRecord(Record):
    """One run as it stands on disk.

    Attributes:
        name: The run's name, from its order.
        study: The study's name.
        digest: The study's.
        rounds: How many it has; 0 judges a given model.
        sites: Those that shall take part; none for all that are enrolled when it begins.
        status: Where it stands.
        why: Why it failed.
        created: When it was first put in.
        place: In the queue, lowest first.
    """

    format: Literal["fedscan.run"] = "fedscan.run"
    version: Literal[1] = 1
    name: RunName
    study: Name
    digest: Sha256
    rounds: int = Field(ge=0)
    sites: tuple[Name, ...] | None = Field(None, min_length=1, max_length=1000)
    status: Status
    why: str | None = Field(None, max_length=WHY)
    created: AwareDatetime
    place: int = Field(ge=0)


class Progress(Record):
    """How far a run came.

    Attributes:
        round: The last round that counted.
        best_round: The round with the best validation so far, 0 for none.
        best_metric: Its mean validation Dice over the sites.
    """

    round: int = 0
    best_round: int = 0
    best_metric: float | None = None


class Queue:
    """The runs in one folder; one process at a time owns it (see server/service/start.py).

    Args:
        folder: The coordinator's `runs` folder.
        coordinator: Whose signed studies may run.

    Attributes:
        damaged: Messages about records that cannot be read; their runs are left alone.
    """

    def __init__(self, folder: Path, coordinator: Coordinator) -> None:
        private_folder(folder)
        self._folder = folder
        self._coordinator = coordinator
        self._changed = threading.Condition()
        self._runs: dict[str, RunRecord] = {}
        self.damaged: list[str] = []
        for path in sorted(folder.glob("*/run.json")):
            try:
                self._runs[path.parent.name] = read_run(path)
            except FedscanError as error:
                self.damaged.append(str(error))

    def all(self) -> list[RunRecord]:
        """All runs by their place in the queue."""
        with self._changed:
            return sorted(self._runs.values(), key=lambda r: r.place)

    def get(self, name: str) -> RunRecord:
        """The run of this name; raises StudyError when there is none."""
        with self._changed:
            if name not in self._runs:
                raise StudyError(f"there is no run {name}; `fedscan run list` shows the runs")
            return self._runs[name]

    def folder(self, name: str) -> Path:
        """Where a run lies."""
        return self._folder / name

    def signed(self, name: str) -> SignedStudy:
        """The signed study of a run; raises SignatureError when it cannot be read."""
        return read_signed_study(read_small(self.folder(name) / "signed.json", 2 * MAX_SIGNED_BYTES))

    def add(self, signed: SignedStudy, study: str, rounds: int, sites: tuple[str, ...] | None) -> RunRecord:
        """Put a verified signed study at the end of the queue.

        A run that failed or was aborted goes on under a later order for it.

        Raises:
            StudyError: The run is there already, and no later order for the same study can let it go on.
        """
        order = self._order(signed)
        with self._changed:
            before = self._runs.get(order.run)
            if before is None and (self.folder(order.run) / "run.json").exists():
                raise CheckpointError(f"{self.folder(order.run)} holds a damaged run; move it away, then start again")
            if before is not None:
                self._refuse_again(before, signed)
            created = before.created if before else datetime.now(UTC)
            record = RunRecord(
                name=order.run, study=study, digest=order.study, rounds=rounds, status="queued", created=created,
                sites=before.sites if before and sites is None else sites, place=self._last_place(),
            )  # fmt: skip
            text = signed.canonical()
            write_whole(self.folder(order.run) / "signed.json", lambda part: part.write_bytes(text))
            return self._put(record)

    def resume(self, name: str) -> RunRecord:
        """Put a run that failed or was aborted at the end of the queue; raises StudyError for any other."""
        with self._changed:
            record = self.get(name)
            if record.status not in GOES_ON:
                raise StudyError(f"the run {name} is {record.status}: only one that failed or was aborted is resumed")
            return self._put(record.model_copy(update={"status": "queued", "why": None, "place": self._last_place()}))

    def abort(self, name: str) -> RunRecord:
        """Take a run out that waits or goes on; raises StudyError for any other."""
        with self._changed:
            record = self.get(name)
            if record.status not in ("queued", "running"):
                raise StudyError(f"the run {name} is {record.status}: only one that waits or goes on can be aborted")
            return self.mark(name, "aborted")

    def mark(self, name: str, status: Status, why: str | None = None, only: Status | None = None) -> RunRecord:
        """Set a run's status.

        Args:
            name: The run.
            status: The new status.
            why: The reason, for a failure.
            only: Do nothing unless the run has this status.
        """
        with self._changed:
            record = self.get(name)
            if only is not None and record.status != only:
                return record
            return self._put(record.model_copy(update={"status": status, "why": why[:WHY] if why else None}))

    def take(self, stop: threading.Event) -> RunRecord | None:
        """Wait for a run to work on and mark it running; None once `stop` is set."""
        with self._changed:
            while not stop.is_set():
                waiting = [r for r in self._runs.values() if r.status in ("running", "queued")]
                if waiting:
                    record = min(waiting, key=lambda r: (r.status != "running", r.place))
                    return self.mark(record.name, "running")
                self._changed.wait(0.5)
        return None

    def _order(self, signed: SignedStudy) -> RunOrder:
        return verified_order(signed.order, self._coordinator.signing_key, self._coordinator.id)

    def _refuse_again(self, before: RunRecord, signed: SignedStudy) -> None:
        name, order = before.name, self._order(signed)
        if order.study != before.digest:
            raise StudyError(f"the run {name} is one of another study; sign this one again with another --run")
        if before.status not in GOES_ON:
            raise StudyError(
                f"the run {name} is {before.status} already; for a new run sign the study again: "
                "an order is for one run"
            )
        if order.issued <= self._order(self.signed(name)).issued:
            raise StudyError(f"the run {name} is {before.status}; to go on: fedscan run resume {name}")

    def _last_place(self) -> int:
        return max((r.place for r in self._runs.values()), default=0) + 1

    def _put(self, record: RunRecord) -> RunRecord:
        path, text = self.folder(record.name) / "run.json", record.canonical() + b"\n"
        write_whole(path, lambda part: part.write_bytes(text))
        path.chmod(PRIVATE)
        self._runs[record.name] = record
        self._changed.notify_all()
        return record


def read_run(path: Path) -> RunRecord:
    """The record in a run's folder; raises CheckpointError."""
    try:
        record = read_record(RunRecord, read_small(path, MAX_RECORD_BYTES), MAX_RECORD_BYTES)
    except (RecordError, IdentityError) as error:
        raise CheckpointError(f"{path}: the run cannot be read ({error}); its folder is left as it is") from None
    if record.name != path.parent.name:
        raise CheckpointError(f"{path} is the record of {record.name}: the folder was copied or renamed")
    return record


def progress(folder: Path) -> Progress:
    """How far the run in `folder` came, from its checkpoint."""
    try:
        state = json.loads((folder / "checkpoints" / "state.json").read_text(encoding="utf-8"))
        metric = float(state["best_metric"])
        return Progress(
            round=state["round"], best_round=state["best_round"], best_metric=metric if metric >= 0 else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Progress()
