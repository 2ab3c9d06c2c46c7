"""Brings the result of each finished run to the sites that took part, beside whatever run goes on.

A site is asked one thing at a time, and a run's task always goes first: the result waits until the site is there and
idle. It is tried for as long as the run's folder is there; a revoked site gets nothing.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Message

from common import wire
from common.bundle import read_bundle
from common.errors import CheckpointError, FedscanError, StorageError, WireError
from common.wire import Schema
from server.channel import Ask
from server.checkpoint import Checkpoints
from server.enrolment.identity import Coordinator
from server.enrolment.site_file import Enrolled
from server.link import Fleet
from server.manifests import Manifests
from server.model import FOLDER
from server.sealed import Sealed
from server.service.delivery import Delivered, Delivery, read_delivery, write_delivery
from server.service.deployed import signed_study
from server.service.gathering import kept_members
from server.service.queue import Queue

log = logging.getLogger("fedscan.runs")

LOOK = 1.0  # seconds between two looks at who is there
_AGAIN, _MOST = 30.0, 6 * 3600.0  # seconds until a site that failed is asked again: at first, and at most


@dataclass
class _Sent:
    """A result on its way."""

    run: str
    site: str
    channel: Sealed


@dataclass
class _Patience:
    """When a site that failed may be asked again."""

    pause: float = _AGAIN
    after: float = 0.0


class Courier:
    """The thread.

    Args:
        queue: The runs.
        coordinator: Whose keys sign.
        enrolled: Whose word counts.
        fleet: The way to the sites.
        look: Seconds between two looks.
    """

    def __init__(
        self, queue: Queue, coordinator: Coordinator, enrolled: Enrolled, fleet: Fleet, look: float = LOOK
    ) -> None:
        self._queue = queue
        self._coordinator = coordinator
        self._enrolled = enrolled
        self._fleet = fleet
        self._look = look
        self._open: dict[str, Delivery] = {}  # runs with somebody who lacks the result
        self._over: set[str] = set()
        self._sent: dict[str, _Sent] = {}
        self._patience: dict[tuple[str, str], _Patience] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self, timeout: float) -> bool:
        """Stop; whether it did within `timeout` seconds."""
        self._ending.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ending.wait(self._look):
            try:
                self._collect()
                self._offer()
            except FedscanError as error:
                log.error("results: %s", error)
                self._ending.wait(_AGAIN)
            except Exception:
                # Another look may work, and without results there are still rounds.
                log.exception("results: unexpected error")
                self._ending.wait(_AGAIN)

    def _collect(self) -> None:
        """Take the answers that came."""
        for message_id, sent in list(self._sent.items()):
            reply = self._fleet.take(message_id)
            if reply is not None:
                del self._sent[message_id]
                self._answered(sent, reply)
            elif not self._fleet.open(message_id):
                del self._sent[message_id]

    def _answered(self, sent: _Sent, reply: Message) -> None:
        key = (sent.run, sent.site)
        try:
            sent.channel.received(sent.site, reply).metrics(wire.RESULT_METRIC_KEYS, {"stored": 1.0})
        except WireError as error:
            self._later(*key)
            self._note(sent, Delivered(why=str(error)[:300]))
            log.warning("the result of %s could not be left at %s: %s", *key, error)
            return
        self._patience.pop(key, None)
        self._note(sent, Delivered(time=datetime.now(UTC)))
        log.info("the result of %s is at %s", *key)

    def _note(self, sent: _Sent, found: Delivered) -> None:
        delivery = self._open[sent.run].noted(sent.site, found)
        self._open[sent.run] = delivery
        write_delivery(self._queue.folder(sent.run), delivery)
        if not delivery.due():
            self._over.add(sent.run)
            del self._open[sent.run]

    def _offer(self) -> None:
        """Send each result to the sites that lack it, are there and have nothing else to do."""
        self._find()
        if not self._open:
            return
        online, now = self._fleet.online(), time.monotonic()
        busy = {s.site for s in self._sent.values()}
        for run, delivery in list(self._open.items()):
            to = {
                site: online[site]
                for site in delivery.due()
                if site in online and site not in busy and self._patience.get((run, site), _Patience()).after <= now
            }
            free = {site: node for site, node in to.items() if not self._fleet.asked(site)}
            if not free:
                continue
            busy |= free.keys()
            try:
                self._send(run, free)
            except FedscanError as error:
                log.error("the result of %s cannot be sent: %s", run, error)
                for site in free:
                    self._later(run, site)

    def _later(self, run: str, site: str) -> None:
        patience = self._patience.setdefault((run, site), _Patience())
        patience.after = time.monotonic() + patience.pause
        patience.pause = min(2 * patience.pause, _MOST)

    def _find(self) -> None:
        """Look for runs that have finished."""
        for record in self._queue.all():
            name = record.name
            if record.status != "finished" or name in self._over or name in self._open:
                continue
            folder = self._queue.folder(name)
            try:
                delivery = read_delivery(folder) or self._first(folder)
            except StorageError:
                raise
            except FedscanError as error:
                log.error("the result of %s is brought to nobody before the next start: %s", name, error)
                self._over.add(name)
                continue
            if delivery.due():
                self._open[name] = delivery
            else:
                self._over.add(name)

    def _first(self, folder: Path) -> Delivery:
        model = read_bundle(folder / FOLDER).card.model
        delivery = Delivery(model=model, sites={m.name: Delivered() for m in kept_members(folder)})
        write_delivery(folder, delivery)
        return delivery

    def _send(self, run: str, to: Mapping[str, int]) -> None:
        channel, ask = self._ask(run, to)
        for site, message in channel.messages(ask).items():
            sent = self._fleet.send_aside(message)
            if sent is not None:
                self._sent[sent] = _Sent(run, site, channel)

    def _ask(self, run: str, to: Mapping[str, int]) -> tuple[Sealed, Ask]:
        folder, signed, c = self._queue.folder(run), self._queue.signed(run), self._coordinator
        study = signed_study(c, signed)
        bundle = read_bundle(folder / FOLDER)
        state = Checkpoints(folder / "checkpoints", study.digest(), Schema.of(study)).state()
        if state is None or bundle.card.digest != study.digest():
            raise CheckpointError(f"{folder}: its model is of another study; write it again: fedscan run report {run}")
        figures = bundle.card.figures
        manifests = Manifests(folder / "manifests", signed, c.id, c.card.signing_key, c.round_key())
        ask = Ask(
            run, figures.round, "result", to, tuple(self._open[run].sites), bundle.flat(),
            acknowledged=state.acknowledged, replies=state.replies, best=state.best_round, figures=figures,
        )  # fmt: skip
        return Sealed(manifests, self._enrolled, c.id), ask
