"""Signing a study file: what is signed must be right, and must be a study that real sites can run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from common.documents import Document
from common.errors import IdentityError, StudyError
from common.keys import PUBLIC, write_new
from common.manifests import sign_study
from common.records import RunName
from common.study import SIMULATION_KEYS
from common.study_check import check_study
from server.enrolment.identity import Coordinator
from server.enrolment.passphrase import known_passphrase


def sign_file(
    path: Path, run: str | None, days: int, out: Path, home: Path, keys: Path | None, passphrase_file: Path | None
) -> None:
    """Check the study in `path`, sign it and an order for one run, and write both to `out`.

    Raises:
        StudyError: The study is wrong, or has a section that only a simulation reads.
        IdentityError: The keys cannot be unlocked, or `out` exists.
    """
    document = Document.read(path)
    for key in SIMULATION_KEYS:
        if key in document.data:
            raise document.error((key,), "is for simulations only; a study that has it cannot be signed. Remove it")
    study, remarks = check_study(path)
    coordinator, now = Coordinator(home), datetime.now(UTC)
    name = run or f"{study.name}-{now:%Y%m%d-%H%M%S}"
    try:
        TypeAdapter(RunName).validate_python(name)
    except ValidationError:
        raise StudyError(f"{name!r} is not a name for a run: letters, digits, '.', - and _, at most 101") from None
    if out.exists():
        raise IdentityError(f"{out} exists already: the order for one run. Move it away, or give another --out")
    signer = coordinator.unlock(known_passphrase(passphrase_file), keys).signing
    signed = sign_study(signer, coordinator.id, study, name, coordinator.card.round_key, now, now + timedelta(days))
    write_new(out, signed.canonical() + b"\n", PUBLIC)
    for remark in remarks:
        click.echo(f"note: {remark}")
    click.echo(f"{out} written: study {study.name}, run {name}, for {days} days from now")
    click.echo(f"  digest {study.digest()} (hospitals see and approve it by this)")
