"""Weights with which runs begin, in the coordinator's home: HOME/start/HASH.safetensors.

The file comes with `fedscan run start`, is held against its study then and again when the run begins, and is not read
any more after the run's first checkpoint.
"""

import json
import shutil
from pathlib import Path

from pydantic import ValidationError

from common.disk import write_whole
from common.documents import Document
from common.errors import StudyError
from common.keys import private_folder
from common.manifests import SignedStudy
from common.schema import Schema
from common.section import AT_SITE
from common.start import start_file, start_tensors, weights_in
from common.study import Study, study_of

FOLDER = "start"
TO_START = "name their file in the study file (start.file), or give it with: fedscan run start --weights FILE"


def kept_start(home: Path, study: Study) -> Path | None:
    """The file of the study's `start` in the coordinator's home; none where it needs none, or has none."""
    if study.start is None:
        return None
    path = _place(home, study.start.sha256)
    return path if path.exists() else None


def bring_start(home: Path, signed: SignedStudy, path: Path, given: Path | None) -> None:
    """Bring the file of the study's `start` into the coordinator's home, unless it is there.

    Args:
        home: The coordinator's.
        signed: What is to be started; the server verifies it.
        path: The study file or the signed study, beside which the study file lies.
        given: The weights, or a model's folder; else where the study file says.

    Raises:
        StudyError: The study needs a file, and there is none; or it needs none, and one is given.
        ModelError: It is another file, or does not fit the study's net.
        StorageError: It could not be copied.
    """
    try:
        study = Study.model_validate(json.loads(signed.study.body), context=AT_SITE)
    except (ValidationError, ValueError) as error:
        raise StudyError(f"{path}: its study cannot be read by this version of fedscan: {error}") from None
    if study.start is None:
        if given is not None:
            raise StudyError(f"--weights: study {study.name} has no start: it begins with random weights")
        return
    if given is None and kept_start(home, study) is not None:
        return
    file = weights_in(given) if given is not None else _named(path, study)
    if file is None:
        raise StudyError(f"{path}: study {study.name} begins with given weights; {TO_START}")
    start_tensors(study, Schema.of(study), file)
    place = _place(home, study.start.sha256)
    private_folder(place.parent)
    write_whole(place, lambda part: shutil.copyfile(file, part))


def _named(path: Path, study: Study) -> Path | None:
    """What `start.file` of the study file names; none where that file is not there, or is of another study."""
    name = path.name.removesuffix(".signed.json") + ".yaml" if path.name.endswith(".signed.json") else path.name
    beside = path.with_name(name)
    if beside.suffix not in (".yaml", ".yml") or not beside.exists():
        return None
    written = study_of(Document.read(beside))
    return start_file(written, beside.parent) if written.start and study.start == written.start.model_copy(
        update={"file": None}) else None  # fmt: skip


def _place(home: Path, sha256: str) -> Path:
    return home / FOLDER / f"{sha256}.safetensors"
