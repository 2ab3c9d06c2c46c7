"""What left this site: one line per reply, on the disk before the link can read the reply.

Each line names the very bytes: anyone who holds a payload, as the coordinator received it, can find it here by its
SHA-256. The audit log holds the hash of each line, so that a line which was changed or removed shows.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AwareDatetime, Field

from client.work.journal import append_line, mend
from common.errors import AuditError
from common.manifests import arrays_sha256, metrics_sha256
from common.records import Record, RecordError, RunName, Sha256, canonical_json, read_canonical
from common.section import Name
from common.study import Study
from common.wire import Task

FILE = "egress.jsonl"
MAX_LINE = 4 * 1024 * 1024  # metrics of hundreds of labels
_PIECE = 4 << 20

Dtype = Literal["float32", "int64", "float16", "int8", "uint16", "uint32"]
Metric = Annotated[str, Field(max_length=200)]


class Sent(Record):
    """An array that left: a flat one, little-endian, of one dtype.

    Attributes:
        elements: Its length.
        nbytes: Its bytes.
        digest: SHA-256 of its bytes as they left, with nothing before or after.
    """

    elements: int = Field(ge=0)
    nbytes: int = Field(ge=0)
    digest: Sha256


class Line(Record):
    """One reply.

    Attributes:
        time: When it was made ready to leave.
        to: Id of the coordinator's key, to whom it is signed.
        study: The study's digest.
        name: The study's name.
        run: The run's name.
        round: The round.
        kind: What had been asked.
        part: On which cases.
        tensors: Tensors of the net, and a strategy's, in the arrays; of coded ones, those that they tell of.
        arrays: The arrays, by dtype; none but after training.
        nbytes: Of arrays and metrics together.
        norm: L2 norm of the change: of the weights that left, less those that came.
        payload: Hash of the arrays as the reply's signed header gives it.
        metrics: The very numbers.
        metrics_sha256: Their hash as the signed header gives it.
        error: The code, where there was no answer.
        kept: Name of the copy in trainer/sent/, where site.yaml wants copies (egress: keep).
    """

    time: AwareDatetime
    to: Sha256
    study: Sha256
    name: Name
    run: RunName
    round: int = Field(ge=0)
    kind: Literal["join", "train", "evaluate", "result"]
    part: Literal["train", "validation", "test"]
    tensors: int = Field(0, ge=0)
    arrays: dict[Dtype, Sent] = Field({})
    nbytes: int = Field(0, ge=0)
    norm: float | None = None
    payload: Sha256 | None = None
    metrics: dict[Metric, float] | None = None
    metrics_sha256: Sha256 | None = None
    error: str | None = Field(None, pattern=r"^E_[A-Z_]{1,30}$")
    kept: str | None = Field(None, pattern=r"^[0-9a-f]{16}\.safetensors$")

    def canonical(self) -> bytes:
        """Its one spelling; what it does not say is left out."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))


def sent(arrays: Mapping[str, Any]) -> dict[str, Sent]:
    """What is said of flat arrays; hashed piece by piece, never copied."""
    found = {}
    for dtype, values in arrays.items():
        view, total = memoryview(values).cast("B"), sha256()
        for start in range(0, view.nbytes, _PIECE):
            total.update(view[start : start + _PIECE])
        elements = view.nbytes // np.dtype(dtype).itemsize
        found[dtype] = Sent(elements=elements, nbytes=view.nbytes, digest=total.hexdigest())
    return found


def line_of(
    task: Task, study: Study, to: str, tensors: int, arrays: Mapping[str, Any], metrics: Mapping[str, float] | None,
    **more: Any,
) -> Line:  # fmt: skip
    """The line for a reply.

    Args:
        task: What it answers.
        study: Of the task.
        to: Id of the coordinator's key.
        tensors: Tensors of the net, and a strategy's, in the arrays; of coded ones, those that they tell of.
        arrays: What leaves, by dtype.
        metrics: What leaves with it; none for an error.
        more: Other fields of `Line`: norm, error, kept.
    """
    about, numbers = sent(arrays), None if metrics is None else dict(metrics)
    return Line.model_validate(
        {
            "time": datetime.now(UTC).replace(microsecond=0), "to": to, "study": study.digest(), "name": study.name,
            "run": task.run, "round": task.round, "kind": task.kind, "part": task.part,
            "tensors": tensors if about else 0, "arrays": about,
            "nbytes": len(canonical_json(numbers) if numbers else b"") + sum(a.nbytes for a in about.values()),
            "payload": arrays_sha256(arrays) if arrays else None, "metrics": numbers,
            "metrics_sha256": None if numbers is None else metrics_sha256(numbers), **more,
        }
    )  # fmt: skip


class Ledger:
    """The ledger of one site, to be written by its trainer alone.

    Args:
        path: The file. A line that a crash tore in its middle is cut off: nothing left after it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        mend(path, MAX_LINE)

    def append(self, line: Line) -> str:
        """Write a line; it is on the disk on return. Returns its SHA-256; raises StorageError."""
        raw = line.canonical()
        append_line(self._path, raw)
        return sha256(raw).hexdigest()


def lines(path: Path) -> Iterator[tuple[Line, str]]:
    """Each line with its SHA-256; one that a crash tore, after which nothing left, is passed over.

    Raises:
        AuditError: A line is not what was written.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                yield read_canonical(Line, raw[:-1], MAX_LINE), sha256(raw[:-1]).hexdigest()
            except RecordError as error:
                raise AuditError(f"{path}, line {number}: it was altered: it {error}") from None
