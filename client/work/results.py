"""Per-case results, in the site's own home. They never leave a real site; a simulation reads them there."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.evaluation import CaseResult
from common.disk import write_whole
from common.study import Study


def write_results(path: Path, study: Study, results: Sequence[CaseResult]) -> None:
    """Write one row per case, with the values of each metric by label; one that does not exist is null."""

    def named(values: Sequence[float]) -> dict[str, float | None]:
        return {label: None if math.isnan(v) else v for label, v in zip(study.data.labels, values, strict=True)}

    rows = [
        {"case": r.case, "patient": r.patient, **{name: named(values) for name, values in r.scores.items()}}
        for r in results
    ]
    write_whole(path, lambda part: part.write_text(json.dumps(rows), encoding="utf-8"))


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_results` wrote; empty when there is no such file."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows
