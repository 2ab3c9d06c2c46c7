"""The process with the network and no scans: it fetches tasks, hands them to the trainer, and delivers its replies.

Nothing that the coordinator answers, and nothing that happens on the way, ends it: every failure is explained and tried
again. The open task and its reply lie on disk, so that a kill at any moment costs at most the object under way.
"""

import common.quiet  # noqa: F401

import logging
import signal
import threading
from contextlib import suppress
from pathlib import Path

from client.handover.control import Progress, TrainerClient
from client.handover.files import TASK, Ref
from client.handover.mailbox import Mailbox
from client.identity import Identity
from client.network.brake import Brake
from client.network.clock import Clock, SystemClock
from client.network.dial import Proxy
from client.network.download import Pull, fetch, read_layout
from client.network.fleet import Fleet
from client.network.heart import Heart
from client.network.hop import Hop
from client.network.objects import Thing, name_of
from client.network.open_task import OpenNote, OpenTask, task_name
from client.network.problems import Backoff, LinkError, Problem
from client.network.standing import Standing
from client.network.things import Offer, error_thing, reply_thing
from client.network.upload import Reply
from client.site import Network, site_of_home
from common.errors import FedscanError, StorageError, WireError
from common.keys import private_folder
from common.lock import alone
from common.log import Form, start_log

log = logging.getLogger("fedscan.link")

_NEAR, _SOON, _LATER = 0.1, 0.2, 1.0  # seconds between two questions for a task
_NEAR_FOR, _SOON_FOR = 5.0, 300.0  # seconds after the last task in which the first two hold
_FORMER = 3.0  # between two tries while a former process of this site still counts as connected


class Link:
    """The link of one site.

    Args:
        home: The site's folder.
        network: Its way to the coordinator.
        clock: The machine's own if none.
    """

    def __init__(self, home: Path, network: Network | None = None, clock: Clock | None = None) -> None:
        network = network or Network()
        proxy = Proxy(network.proxy.get_secret_value(), network.proxy_ca) if network.proxy else None
        self._home = home
        self._clock: Clock = clock or SystemClock()
        self._mailbox = Mailbox(home)
        self._trainer = TrainerClient(self._mailbox.socket)
        self.fleet = Fleet(home, proxy)
        self.standing = Standing(self._mailbox.link_status, self.fleet.traffic)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lost = threading.Event()  # the coordinator has forgotten this process
        self._brake = Brake(self._mailbox, self.fleet, self.standing, self._wake.set)
        self._heart = Heart(self.fleet, self._clock, lambda: self._node, self._forgotten)
        self._backoff = Backoff()
        self._busy = -_SOON_FOR  # when there was last something to do
        self._node: int | None = None
        self._offer: Offer | None = None  # the message that waits for a reply
        self._note = OpenNote(home / "link" / "open.json")
        self._open: OpenTask | None = None
        self._places: dict[str, int] = {}
        self._hop: Hop | None = None
        self._reply: Reply | None = None

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Work until told to stop; raises FedscanError when another process of this identity runs here."""
        private_folder(self._home / "link")
        self._mailbox.make()
        with alone(
            self._home / "link" / "lock",
            FedscanError(f"a link of the site in {self._home} is running already; stop it first: fedscan site stop"),
        ):
            self._brake.start(self._stop)
            try:
                self._restore()
                self._heart.start(self._stop)
                while not self._stop.is_set():
                    self._clock.wait(self._wake, self._guarded_step())
                    if not self._stop.is_set():
                        self._wake.clear()
            finally:
                self._leave()

    def _leave(self) -> None:
        self.stop()
        if self._hop is not None:
            self._hop.leave()
        if self._node is not None:
            with suppress(LinkError):
                self.fleet.deactivate(self._node)
        self.fleet.close()
        self._put_away_reply()
        self.standing.connected = None
        self.standing.at("stopped")

    # One thing after the other

    def _guarded_step(self) -> float:
        """Do what there is to do; returns the seconds until the next time."""
        try:
            self._step()
        except LinkError as error:
            return self._failed(error)
        except StorageError as error:
            return self._failed(LinkError(Problem("disk", str(error), "The task is fetched as soon as there is room")))
        except Exception as error:
            # Whatever it is, another try may work, and a link that has ended never does.
            log.exception("unexpected error")
            return self._failed(LinkError(Problem("unexpected", type(error).__name__, "Report it, with the log")))
        self._backoff.calm()
        self.standing.fine("coordinator", self._clock.now())
        return self._pause()

    def _failed(self, error: LinkError) -> float:
        if self._stop.is_set():
            return 0.0
        if error.status in (409, 401):
            self._node = None
        if error.problem.code == "paused" or (self._brake.on and self.standing.phase == "upload"):
            self.standing.at("idle")
            return _SOON  # it was cut off here
        self.standing.at("connecting")
        self.standing.failed("coordinator", error.problem, self._clock.now())
        pause = self._backoff.pause(error.wait)
        return min(pause, _FORMER) if error.status == 412 else pause

    def _pause(self) -> float:
        idle = self._clock.now() - self._busy
        if self._hop is not None and self._hop.answer is None:
            return _LATER  # the answer wakes us
        return _NEAR if idle < _NEAR_FOR else _SOON if idle < _SOON_FOR else _LATER

    def _step(self) -> None:
        if self._lost.is_set():
            self._lost.clear()
            self._node = None
        if self._node is None:
            self._activate()
        assert self._node is not None  # noqa: S101 - just activated
        self._deliver_if_there(self._node)
        offer = self.fleet.offered(self._node)
        self.standing.heard()
        if offer is not None:
            self._accept(self._node, offer)
        self._look_at_trainer()
        self._deliver_if_there(self._node)
        working = self._hop is not None and self._hop.answer is None
        self.standing.at("work" if working else "idle")

    def _activate(self) -> None:
        node = self.fleet.activate()
        where = self.fleet.where
        if self.standing.coordinator != where or self.standing.connected is None:
            log.info("connected to %s", where)
        self.standing.coordinator = where
        self._node = node

    def _forgotten(self) -> None:
        self._lost.set()
        self._wake.set()

    # Tasks

    def _accept(self, node: int, offer: Offer) -> None:
        """Have the offered task whole on disk, confirm it, and see that the trainer works on it."""
        self._busy = self._clock.now()

        def pull(object_id: str, small: bool) -> memoryview:
            content = self.fleet.pull(node, offer, object_id, small)
            self._progress()
            return content

        try:
            if self._open is None or self._open.content != offer.content:
                self._fetch(pull, offer.content)
            elif self._hop is not None and self._offer != offer and _refused(self._hop):
                self._hop = None  # it may be accepted meanwhile
            self._offer = offer
            if self._hop is None:
                self._begin()
            self.fleet.confirm(node, offer)
        except LinkError as error:
            if error.status != 410:
                raise
            self._offer = None
            return
        except WireError as error:
            log.error("a task is refused: %s", error)
            self._answer_error(node, offer, error.code)

    def _fetch(self, pull: Pull, content: str) -> None:
        self.standing.at("download")
        layout = read_layout(pull, content)
        # An older task is put aside only when the new one is whole.
        fetched = fetch(pull, layout, self._mailbox, self._places)
        self._places = dict(fetched.places)
        self._open = OpenTask(content=content, task=fetched.ref, name=task_name(layout.assignment))
        self._note.write(self._open)
        self._put_away_reply()
        self._offer = None
        if self._hop is not None:
            self._hop.leave()
            self._hop = None
        self.standing.task = self._open.name
        log.info("task %s is here (%d bytes)", self._open.name, fetched.ref.nbytes)

    def _begin(self) -> None:
        if self._open is not None:
            self._hop = Hop(self._trainer, self._open.task, self._wake.set)

    def _look_at_trainer(self) -> None:
        if self._hop is None:
            return
        if self._hop.problem is not None:
            self.standing.failed("trainer", self._hop.problem, self._clock.now())
        elif self._hop.progress is not None:
            self.standing.fine("trainer", self._clock.now())

    # Replies

    def _deliver_if_there(self, node: int) -> None:
        if self._brake.on:
            self._put_away_reply()
            return
        offer, answer = self._offer, self._hop.answer if self._hop is not None else None
        if offer is not None and answer is not None and self._open is not None:
            self._deliver(node, offer, answer, self._open)

    def _deliver(self, node: int, offer: Offer, answer: Progress, task: OpenTask) -> None:
        self.standing.at("upload")
        self._busy = self._clock.now()
        try:
            if answer.reply is None:
                log.error("the trainer refused the task (%s); its log says why", answer.code)
                self._answer_error(node, offer, answer.code or FedscanError.code)
            else:
                self._push_reply(node, offer, answer.reply)
                what = "reply" if answer.code is None else f"refusal ({answer.code})"
                log.info("the %s to %s was delivered (%d bytes)", what, task.name, answer.reply.nbytes)
        except WireError as error:
            # The trainer has put another file there, or none: it is asked again.
            self._hop = None
            self._begin()
            raise LinkError(Problem("reply", str(error), "The trainer is asked for it again")) from None
        except LinkError as error:
            if error.status not in (410, 413):
                raise
            # The coordinator sends the task again if it still needs the reply; it is kept until a later task.
            log.warning("a reply was not taken: %s", error)
        self._offer = None
        self._open = task.model_copy(update={"delivered": True})
        self._note.write(self._open)

    def _push_reply(self, node: int, offer: Offer, ref: Ref) -> None:
        if self._reply is None or self._reply.ref != ref:
            self._put_away_reply()
            self._reply = Reply(self._mailbox, ref)
        self._push(node, offer, reply_thing(offer, node, self._reply.content), self._reply)

    def _answer_error(self, node: int, offer: Offer, code: str) -> None:
        self._push(node, offer, error_thing(offer, node, code), None)

    def _push(self, node: int, offer: Offer, root: Thing, reply: Reply | None) -> None:
        """Send what the coordinator does not have yet, the outermost object last."""
        content = root.content()
        name, inner = name_of(content), reply.names if reply is not None else []
        session = self.fleet.announce(node, offer, name, inner)
        for part in (part for part in inner if part in session.missing):
            self.fleet.push(node, offer, session, part, reply.pieces(part) if reply is not None else ())
            self._progress()
        if name in session.missing:
            self.fleet.push(node, offer, session, name, [content])

    def _progress(self) -> None:
        """An object came through: whatever fails next is a new failure."""
        self._backoff.calm()
        self._busy = self._clock.now()
        self.standing.heard()
        if self._stop.is_set():
            raise LinkError(Problem("stopped", "the link is being stopped", "It goes on when it is started again"))

    def _put_away_reply(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    # What outlives the process

    def _restore(self) -> None:
        """Go on with the task that an earlier process left, if its file is whole."""
        found = self._note.read()
        if found is None or self._mailbox.find(TASK) != found.task:
            return
        self._open = found
        self.standing.task = found.name
        if not found.delivered:
            log.info("task %s was left open: going on with it", found.name)
            self._begin()


def _refused(hop: Hop) -> bool:
    return hop.answer is not None and hop.answer.state == "refused"


def run(home: Path, form: Form = "text") -> None:
    """Be the link of the site in `home`, until SIGTERM or SIGINT.

    Raises:
        IdentityError: The site has not joined a federation, or its keys are missing.
        StudyError: site.yaml is wrong.
        FedscanError: Another link works here already.
    """
    start_log(form)
    site, network = Identity(home).link_credentials().site, site_of_home(home).network
    link = Link(home, network)
    for number in (signal.SIGTERM, signal.SIGINT):
        # On another thread: this one may hold the very lock that `stop` needs.
        signal.signal(number, lambda *_: threading.Thread(target=link.stop).start())
    log.info("link of %s starts", site)
    link.run()
    log.info("link of %s stopped", site)
