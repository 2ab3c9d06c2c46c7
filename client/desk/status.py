"""What `fedscan site status` shows: one screen for the radiologist and the people who look after the machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from client.handover.control import TrainerClient, TrainerGoneError, TrainerStatus
from client.handover.mailbox import Mailbox
from client.identity import Identity
from client.network.problems import printable
from client.node import LOG, NodeState, read_state, running
from common.certificates import read_certificate
from common.errors import ApprovalError, FedscanError
from common.keys import read_small

# The link writes its state with every answer and every failed try; silent for so long, it hangs.
SILENT = 300.0
RENEW_DAYS = 30
MAX_BYTES = 64 * 1024


class Trouble(BaseModel):
    """A problem of the link, as it stands in link.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    code: str = Field(max_length=100)
    what: str = Field(max_length=4000)
    remedy: str = Field(max_length=4000)
    since: AwareDatetime
    tries: int = 1


class LinkState(BaseModel):
    """What the link says of itself (HOME/shared/link.json). It is a stranger's file: the link has a network.

    Attributes:
        phase: What it is at.
        started: When the process began.
        written: When it said this.
        connected_since: Since when the coordinator counts it as connected; none while it does not.
        last_contact: When the coordinator answered last.
        problems: By whose they are: coordinator, trainer.
        task: The open task.
        paused: Whether it has let go of everything, as the people of the site said.
        bytes_received: Since the process began.
        bytes_sent: Since the process began.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    phase: str = Field(max_length=40)
    started: AwareDatetime
    written: AwareDatetime
    connected_since: AwareDatetime | None = None
    last_contact: AwareDatetime | None = None
    problems: dict[str, Trouble] = Field({}, max_length=8)
    task: str | None = Field(None, max_length=400)
    paused: bool = False
    bytes_received: int = 0
    bytes_sent: int = 0

    def alive(self, now: datetime) -> bool:
        """Whether its process works, connected or not."""
        return self.phase != "stopped" and (now - self.written).total_seconds() < SILENT


@dataclass(frozen=True)
class SiteStatus:
    """How a site stands.

    Attributes:
        site: Its name; none before it has joined.
        coordinator: Host and port.
        certificate: When its certificate ends.
        running: Process id of the node; none under containers and systemd, where there is none.
        node: What the node sees of its processes.
        trainer: What the trainer says; none when it does not answer.
        link: What the link says; none when it never ran.
        now: When this was found out.
    """

    site: str | None
    coordinator: str | None
    certificate: datetime | None
    running: int | None
    node: NodeState | None
    trainer: TrainerStatus | None
    link: LinkState | None
    now: datetime

    @property
    def link_alive(self) -> bool:
        """Whether the link works, connected or not."""
        return self.link is not None and self.link.alive(self.now)

    @property
    def connected(self) -> bool:
        """Whether the coordinator counts the site as connected."""
        return self.link_alive and self.link is not None and self.link.connected_since is not None

    @property
    def well(self) -> bool:
        """Whether nobody needs to do anything."""
        renew = self.certificate is None or (self.certificate - self.now).days < RENEW_DAYS
        return self.trainer is not None and self.connected and not renew


def read_link(home: Path) -> LinkState | None:
    """What the link said last; none when there is nothing to read."""
    try:
        return LinkState.model_validate_json(read_small(Mailbox(home).link_status, MAX_BYTES))
    except (FedscanError, ValidationError):
        return None


def find(home: Path, now: datetime | None = None) -> SiteStatus:
    """How the site in `home` stands. What this user may not read counts as not there."""
    site = coordinator = certificate = None
    try:
        federation = Identity(home).federation()
        site, coordinator = federation.site, f"{federation.host}:{federation.port}"
        path = Identity(home).certificate_path(federation.certificate)
        certificate = read_certificate(read_small(path, MAX_BYTES).decode(), str(path)).not_valid_after_utc
    except FedscanError:
        pass
    pid = running(home)
    return SiteStatus(
        site=site, coordinator=coordinator, certificate=certificate, running=pid,
        node=read_state(home) if pid is not None else None, trainer=_trainer(home), link=read_link(home),
        now=now or datetime.now(UTC),
    )  # fmt: skip


def healthy(home: Path, process: Literal["link", "trainer"]) -> bool:
    """Whether one of the processes works: what the health checks of containers ask. A network that is down is none
    of its faults."""
    if process == "trainer":
        return _trainer(home) is not None
    link = read_link(home)
    return link is not None and link.alive(datetime.now(UTC))


def _trainer(home: Path) -> TrainerStatus | None:
    try:
        return TrainerClient(Mailbox(home).socket).status(10)
    except (TrainerGoneError, FedscanError):
        return None


def as_json(status: SiteStatus) -> str:
    """For scripts."""
    facts: dict[str, Any] = {
        "site": status.site, "coordinator": status.coordinator, "well": status.well, "connected": status.connected,
        "certificate_ends": status.certificate.isoformat() if status.certificate else None, "process": status.running,
    }  # fmt: skip
    parts: Mapping[str, BaseModel | None] = {"node": status.node, "trainer": status.trainer, "link": status.link}
    facts |= {name: part.model_dump(mode="json") if part else None for name, part in parts.items()}
    return json.dumps(facts, indent=1)


def lines(status: SiteStatus) -> list[tuple[bool, str, str]]:
    """The screen: (all well, what, how it stands), to be read from the top."""
    if status.site is None:
        return [(False, "federation", "not joined yet; run: fedscan site init, then: fedscan site join NAME.join")]
    found = [_connection(status), _training(status), _processes(status)]
    waiting = status.trainer.waiting if status.trainer is not None else 0
    if waiting:
        wait = "1 study waits" if waiting == 1 else f"{waiting} studies wait"
        found.append((False, "approvals", f"{wait} for a decision: fedscan site study list"))
    if status.certificate is not None:
        days = (status.certificate - status.now).days
        text = f"valid until {status.certificate:%Y-%m-%d} ({days} days)"
        remedy = "" if days >= RENEW_DAYS else "; ask the coordinator for a new join file"
        found.append((not remedy, "certificate", text + remedy))
    return found


def _connection(status: SiteStatus) -> tuple[bool, str, str]:
    link, name = status.link, "connection"
    if link is None or not status.link_alive:
        since = f"; last heard of at {_time(link.written)}" if link is not None and link.phase != "stopped" else ""
        return False, name, f"the link does not run{since}; {_what_to_do(status)}"
    trouble = link.problems.get("coordinator")
    if trouble is not None:
        return False, name, (
            f"none since {_time(trouble.since)}, {trouble.tries} tries: {printable(trouble.what)}. "
            f"{printable(trouble.remedy)}"
        )  # fmt: skip
    if link.connected_since is None or link.last_contact is None:
        return False, name, "being made"
    ago = (status.now - link.last_contact).total_seconds()
    doing = {"download": ", a task arrives", "upload": ", a reply leaves"}.get(link.phase, "")
    amount = f"{_bytes(link.bytes_received)} in and {_bytes(link.bytes_sent)} out since {_time(link.started)}"
    return True, name, f"since {_time(link.connected_since)}, last answer {ago:.0f} s ago{doing}; {amount}"


def _training(status: SiteStatus) -> tuple[bool, str, str]:
    trainer, name = status.trainer, "training"
    if trainer is None:
        return False, name, f"the trainer does not answer; {_what_to_do(status)}"
    if trainer.paused is not None:
        return False, name, f"paused since {_time(trainer.paused)}; go on with: fedscan site unpause"
    if trainer.hours:
        return True, name, f"waits for its hours: {', '.join(trainer.hours)}"
    failed = _failed(trainer.last_code)
    well = not failed or _decided(trainer.last_code)
    if trainer.study is None:
        return well, name, f"waits for the first task, on {trainer.device}{failed}"
    task = {
        "join": "counting cases for",
        "train": f"round {trainer.round} of",
        "evaluate": f"validation of round {trainer.round} of",
        "result": "the result of",
    }[trainer.kind or "join"]
    of = f"{task} study {trainer.study} (run {trainer.run})"
    if trainer.since is None:
        return well, name, f"waits; the last task was {of}{failed}"
    unit = "steps" if trainer.kind == "train" else "cases"
    far = f", {trainer.done} of {trainer.of} {unit}" if trainer.of else ""
    return well, name, f"{of}{far}, since {_time(trainer.since)}, on {trainer.device}{failed}"


def _decided(code: str | None) -> bool:
    """Whether a task was not worked on because the site's people, or nobody yet, said so."""
    return code is not None and code.startswith(ApprovalError.code)


def _failed(code: str | None) -> str:
    if code is None:
        return ""
    if _decided(code):
        return f"; the last task was not let in ({code}): fedscan site study list"
    return f"; the last task failed with {code}: the log, or trainer/errors.log, says why"


def _processes(status: SiteStatus) -> tuple[bool, str, str]:
    if status.node is None:
        up = status.trainer is not None and status.link_alive
        return up, "processes", "run as services of their own" if up else "not all of them run"
    told = []
    for name, part in status.node.parts.items():
        without = "" if part.online else ", no network"
        deaths = f", started again {part.deaths} times ({part.last})" if part.deaths else ""
        told.append(f"{name} {part.pid or 'waits to be started'}{without}{deaths}")
    return all(part.pid for part in status.node.parts.values()), "processes", "; ".join(told)


def _what_to_do(status: SiteStatus) -> str:
    if status.running is None:
        return "start it with: fedscan site start"
    return f"the node starts it again; {LOG} in the site's folder says why it ends"


def _time(moment: datetime) -> str:
    """In this machine's zone; with the day when it was another one."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().astimezone().date() else f"{local:%Y-%m-%d %H:%M}"


def _bytes(n: int) -> str:
    for unit in ("B", "KB", "MB"):
        if n < 1000:
            return f"{n} {unit}"
        n //= 1000
    return f"{n} GB"
