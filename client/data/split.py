"""The fixed division of a site's patients into training, validation and test."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from common.disk import write_whole
from common.errors import DataError
from common.section import Part
from common.seeds import derive
from common.study_evaluation import Evaluation

PARTS: tuple[Part, ...] = ("train", "validation", "test")
FILE = "split.json"


def targets(patients: int, evaluation: Evaluation) -> dict[Part, int]:
    """How many of `patients` belong to each part.

    Shares are rounded half up. From three patients on, every part whose share is not 0 has at least one; training
    always has at least one, unless the shares leave it nothing. With one or two patients rounding alone decides.
    """

    def rounded(share: float) -> int:
        number = int(patients * share + 0.5)
        return max(number, 1) if share > 0 and patients >= 3 else number

    validation, test = rounded(evaluation.validation), rounded(evaluation.test)
    most = max(patients - 1, 0) if evaluation.leaves_training else patients
    while validation + test > most:
        if validation >= test:
            validation -= 1
        else:
            test -= 1
    if not evaluation.leaves_training:
        test = patients - validation
    return {"train": patients - validation - test, "validation": validation, "test": test}


def assign(
    patients: Iterable[str], seed: int, evaluation: Evaluation, kept: Mapping[str, Part] | None = None
) -> dict[str, Part]:
    """The part of each patient.

    Patients are ordered by a hash of seed and patient id, never by site, file order or number of cases. Those in
    `kept` keep their part. The others go, in that order, to test until it has its target number, then to validation,
    then to training. So patients that come later change nothing for those who were there, and the parts grow towards
    their shares. Where `kept` holds more of a part than its target, nobody is moved.
    """
    everyone = sorted(set(patients), key=lambda p: derive(seed, "split", p))
    parts: dict[str, Part] = {p: kept[p] for p in everyone if p in kept} if kept else {}
    target = targets(len(everyone), evaluation)
    have = {part: sum(1 for p in parts.values() if p == part) for part in PARTS}
    for patient in everyone:
        if patient in parts:
            continue
        part: Part = next((p for p in ("test", "validation") if have[p] < target[p]), "train")
        parts[patient] = part
        have[part] += 1
    return parts


def split(
    patients: Iterable[str], seed: int, evaluation: Evaluation, *, use: Literal["train", "test"], home: Path
) -> dict[str, Part]:
    """The part of each patient, kept in `home`/split.json so that it never changes again.

    The file holds one table per (seed, shares), because studies with another seed or other shares divide anew.
    At a site of use `test` everybody is test, and nothing is written.

    Raises:
        DataError: split.json is there but cannot be read.
        StorageError: It cannot be written.
    """
    if use == "test":
        return dict.fromkeys(patients, "test")
    path = home / FILE
    tables = _read(path)
    name = f"seed {seed}, validation {evaluation.validation}, test {evaluation.test}"
    kept = tables.get(name, {})
    parts = assign(patients, seed, evaluation, kept)
    if any(patient not in kept for patient in parts):
        tables[name] = {**kept, **parts}
        text = json.dumps(tables, indent=1, sort_keys=True, ensure_ascii=False)
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return parts


def _read(path: Path) -> dict[str, dict[str, Part]]:
    if not os.path.lexists(path):
        return {}
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        valid = all(part in PARTS for table in tables.values() for part in table.values())
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}). {_REMEDY}") from None
    if not valid:
        raise DataError(f"{path}: holds a part that is none of {', '.join(PARTS)}. {_REMEDY}")
    return tables  # type: ignore[no-any-return]


_REMEDY = "It says which patients are kept for the test: restore it from a backup; delete it only to divide anew."
