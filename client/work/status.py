"""What the trainer says of itself to whoever asks how the site stands."""

from pathlib import Path

from client.device import pick_device
from client.handover.control import TrainerStatus
from client.identity import Identity
from client.site import site_of_home
from client.work.brakes import Brakes
from client.work.job import Job
from client.work.replies import software
from common.errors import IdentityError, StudyError


def status_of(home: Path, job: Job | None, brakes: Brakes, waiting: int, last_code: str | None) -> TrainerStatus:
    """How a trainer stands.

    Args:
        home: The site's folder.
        job: What was accepted last.
        brakes: What holds the work up.
        waiting: Studies that nobody has decided on.
        last_code: Why the last task was refused or failed; none when it did not.
    """
    said = TrainerStatus(
        version=software(),
        site=_site(home),
        device=_device(home),
        last_code=last_code,
        waiting=waiting,
        paused=brakes.paused.since if brakes.paused else None,
        hours=brakes.awaited_hours,
    )
    if job is None:
        return said
    manifest = job.offer.manifest
    return said.model_copy(
        update={
            "study": job.offer.study.name, "digest": manifest.study, "run": manifest.run, "round": manifest.round,
            "kind": manifest.kind, "done": job.done, "of": job.of, "since": None if job.ended else job.since,
        }
    )  # fmt: skip


def _site(home: Path) -> str | None:
    try:
        return Identity(home).federation().site
    except IdentityError:
        return None


def _device(home: Path) -> str:
    try:
        return str(pick_device(site_of_home(home).device))
    except StudyError:
        return "unknown"
