"""One run of a signed study over real sites, from the first question to the final test."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from flwr.app import Message
from pydantic import TypeAdapter, ValidationError

from common.disk import write_whole
from common.errors import CheckpointError, RoundError, StudyError, WireError
from common.manifests import AuditHead, SignedStudy, verified_study
from common.study import Study
from server.audit_heads import FILE as HEADS
from server.audit_heads import SAYS, AuditHeads
from server.channel import Ask
from server.checkpoint import State
from server.deadlines import Deadlines
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled
from server.events import Event, Events
from server.exchange import Stopped, exchange
from server.joining import Member, member
from server.manifests import Manifests
from server.rounds import Run
from server.sealed import Sealed
from server.service.coordinator import ServerLink

AGAIN = 30.0  # seconds until a site that could not join, or was not there, is asked again
PATIENCE = 24 * 3600.0  # seconds to wait for all sites: the first answer comes when a site has prepared its scans


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
        RoundError: Too few sites joined, or a round missed its quorum.
        Stopped: `stop` was set.
    """
    study = signed_study(coordinator, signed)
    folder.mkdir(parents=True, exist_ok=True)
    manifests = Manifests(
        folder / "manifests", signed, coordinator.id, coordinator.card.signing_key, coordinator.round_key()
    )
    heads = AuditHeads(coordinator.home / HEADS)

    def heard(site: str, head: AuditHead, fresh: bool) -> None:
        finding = heads.heard(site, head, fresh)
        if finding is not None:
            Events(folder / "events.jsonl", listener).append(
                "audit", round=manifests.last.round if manifests.last else 0, site=site, why=SAYS[finding]
            )

    channel = Sealed(manifests, enrolled, coordinator.id, heard)
    members = _members(link, channel, folder, manifests.order.run, sites, study.rounds.quorum, stop, listener)
    run = Run(
        link.grid, study, folder, [m for m in members if m.train], members, None, listener, channel,
        Deadlines(study.rounds.deadline), stop,
    )  # fmt: skip
    return run.start()


def signed_study(coordinator: Coordinator, signed: SignedStudy) -> Study:
    """The study in `signed`, whose strategy this coordinator knows; raises SignatureError and StudyError."""
    verified_study(signed.study, coordinator.signing_key, coordinator.id)
    try:
        return Study.model_validate(json.loads(signed.study.body))
    except ValidationError as error:
        raise StudyError(f"the signed study cannot be run by this version of fedscan: {error}") from None


def _members(
    link: ServerLink,
    channel: Sealed,
    folder: Path,
    run: str,
    sites: Sequence[str] | None,
    quorum: float,
    stop: threading.Event,
    listener: Callable[[Event], None] | None,
) -> list[Member]:
    """The run's sites by name. They are fixed when the run begins, and kept in its folder."""
    path = folder / "members.json"
    there = link.fleet.sites()
    if not path.exists():
        wanted = sorted(there if sites is None else sites)
        unknown = sorted(set(wanted) - there.keys())
        if unknown or not wanted:
            raise StudyError(f"not enrolled: {', '.join(unknown) or 'nobody is'}; see: fedscan server site list")
        events = Events(folder / "events.jsonl", listener)
        found = _joined(link, channel, run, {name: there[name] for name in wanted}, quorum, stop, events)
        text = json.dumps([asdict(m) for m in found], indent=1)
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    # A node's number is Flower's and dies with its process; who was revoked since has none and is parted with.
    return [Member(**{**asdict(m), "node_id": there.get(m.name, 0)}) for m in kept_members(folder)]


def kept_members(folder: Path) -> list[Member]:
    """The sites that take part in the run in `folder`; raises CheckpointError."""
    path = folder / "members.json"
    try:
        return TypeAdapter(list[Member]).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise CheckpointError(f"{path} is damaged; put it back, or remove the run's folder to start it anew") from None


def _joined(
    link: ServerLink,
    channel: Sealed,
    run: str,
    nodes: Mapping[str, int],
    quorum: float,
    stop: threading.Event,
    events: Events,
) -> list[Member]:
    """Ask until all sites have said how many cases they have, or patience ends and there are enough."""
    members: dict[str, Member] = {}
    start = time.monotonic()
    events.append("asked", round=0, what="join", sites=list(nodes), deadline=PATIENCE)
    told: dict[str, str] = {}

    def take(site: str, reply: Message) -> None:
        try:
            found = member(site, nodes[site], channel.received(site, reply))
        except WireError as error:
            if told.get(site) != str(error):
                told[site] = str(error)
                events.append("failed", round=0, site=site, why=str(error))
            return
        members[site] = found
        counts = {k: v for k, v in asdict(found).items() if k not in ("name", "node_id")}
        events.append("joined", round=0, site=site, **counts)

    while len(members) < len(nodes):
        ask = Ask(run, 0, "join", {n: i for n, i in nodes.items() if n not in members}, list(nodes))
        asked = time.monotonic()
        exchange(link.grid, channel.messages(ask), take, lambda: AGAIN, stop)
        if len(members) < len(nodes) and time.monotonic() - start > PATIENCE:
            break
        while len(members) < len(nodes) and time.monotonic() < asked + AGAIN:
            if stop.wait(0.2):
                raise Stopped("the run was stopped before all sites had joined")
    able = [m for m in members.values() if m.train]
    if len(able) < max(1, quorum * len(nodes)):
        raise RoundError(f"{len(able)} of {len(nodes)} sites joined with training cases; see fedscan run watch for why")
    return sorted(members.values(), key=lambda m: m.name)
