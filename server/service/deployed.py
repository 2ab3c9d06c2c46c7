"""One run of a signed study over real sites, from the first question to the final test."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from common.errors import StudyError
from common.manifests import AuditHead, SignedStudy, verified_study
from common.study import Study
from server.audit_heads import FILE as HEADS
from server.audit_heads import SAYS, AuditHeads
from server.checkpoint import State
from server.consent import Consent
from server.deadlines import Deadlines
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled
from server.events import Event, Events
from server.manifests import Manifests
from server.rounds import Run
from server.sealed import Sealed
from server.service.coordinator import ServerLink
from server.service.gathering import Gathering
from server.service.starts import kept_start


def run_study(
    link: ServerLink,
    coordinator: Coordinator,
    enrolled: Enrolled,
    folder: Path,
    signed: SignedStudy,
    sites: Sequence[str] | None,
    stop: threading.Event,
    listener: Callable[[Event], None] | None = None,
) -> State:
    """Run a study, or go on with it; everything of the run lies in `folder`, which has the run's name.

    Args:
        link: The way to the sites.
        coordinator: Whose keys sign the manifests.
        enrolled: The sites.
        folder: The run's folder.
        signed: The study and the order for this run.
        sites: The sites that take part; all that are enrolled if none.
        stop: Set from another thread to leave.
        listener: Told of each event.

    Raises:
        SignatureError: The study is not signed by this coordinator.
        StudyError: No site can take part, or this version cannot run the study.
        ModelError: The file of the study's `start` was changed.
        RoundError: Too few sites joined, or a round missed its quorum.
        Stopped: `stop` was set.
    """
    study = signed_study(coordinator, signed)
    folder.mkdir(parents=True, exist_ok=True)
    manifests = Manifests(
        folder / "manifests", signed, coordinator.id, coordinator.card.signing_key, coordinator.round_key()
    )
    events = Events(folder / "events.jsonl", listener)
    heads = AuditHeads(coordinator.home / HEADS)

    def heard(site: str, head: AuditHead, fresh: bool) -> None:
        finding = heads.heard(site, head, fresh)
        if finding is not None:
            events.append("audit", round=manifests.last.round if manifests.last else 0, site=site, why=SAYS[finding])

    channel = Sealed(manifests, enrolled, coordinator.id, heard)
    consent = Consent(folder / "consent.json", events)
    gathering = Gathering(link, channel, folder, manifests.order.run, consent, events, stop)
    members = gathering.members(sites, study.rounds.quorum, study.trains)
    run = Run(
        link.grid, study, folder, [m for m in members if m.train or not study.trains], members, None, listener, channel,
        Deadlines(study.rounds.deadline), stop, consent, gathering.again, kept_start(coordinator.home, study),
    )  # fmt: skip
    return run.start()


def signed_study(coordinator: Coordinator, signed: SignedStudy) -> Study:
    """The study in `signed`, whose strategy this coordinator knows; raises SignatureError and StudyError."""
    verified_study(signed.study, coordinator.signing_key, coordinator.id)
    try:
        return Study.model_validate(json.loads(signed.study.body))
    except ValidationError as error:
        raise StudyError(f"the signed study cannot be run by this version of fedscan: {error}") from None
