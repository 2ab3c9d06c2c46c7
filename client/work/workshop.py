"""Where the trainer does its work: the ClientApp over the site's own scans, warm from task to task of one study."""

import common.quiet  # noqa: F401

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, RecordDict

from client.app import make_app
from client.data.prepare import prepare
from client.device import pick_device
from client.gates import change_norm
from client.handover.files import Arrays
from client.open_site import OpenSite, Workplace
from client.site import SiteConfig, places
from client.training import Progress
from client.work.homecoming import bring_home
from client.work.midround import Midround
from client.work.outcome import Outcome
from client.work.tasks import Offer
from common import wire
from common.wire import ARRAYS, METRICS

log = logging.getLogger("fedscan.trainer")

_NODE = 1  # of the message that never leaves this process


class StopWork(BaseException):
    """The work in progress is not wanted any more: no error, as KeyboardInterrupt is none."""


class Workshop:
    """One site's app, its net and its cases, of one study at a time.

    Args:
        home: The site's folder.
        tell: Called with (done, of) as the work goes on.
        stopping: Whether the work is to be stopped.
    """

    def __init__(self, home: Path, tell: Callable[[int, int], None], stopping: Callable[[], bool]) -> None:
        self._home = home
        self._tell = tell
        self._stopping = stopping
        self._site: OpenSite | None = None
        self._opened: tuple[str, SiteConfig] | None = None
        self._threads = torch.get_num_threads()  # what the machine gives, for a site that sets no limit or lifts it
        self._app = make_app(lambda context: self._open())
        wire.become(run_id=1, node_id=_NODE)

    @property
    def midround(self) -> Path:
        """The open round as it was written down last."""
        return self._home / "trainer" / "midround.safetensors"

    def do(self, offer: Offer, arrays: Arrays) -> Outcome:
        """Work on a task.

        Args:
            offer: The task.
            arrays: Its weights; the dictionary is emptied, so that they do not outlive their use.
        """
        if offer.manifest.kind == "result":
            return bring_home(self._home, offer, arrays)
        self._turn_to(offer)
        site = self._open()
        site.progress = lambda stream, count: self._begin(f"{offer.key} {stream} {count}", count)
        record = wire.record_of(arrays) if offer.manifest.base is not None else None
        arrays.clear()
        message = wire.instruction(_NODE, offer.study, offer.task, record, None)
        wire.stamp(message)
        context = Context(run_id=1, node_id=_NODE, node_config={}, state=RecordDict(), run_config={})
        reply = self._app(message, context)
        if reply.has_error():
            return Outcome(error=reply.error.reason)
        update = reply.content.get(ARRAYS)
        arrays_out = {d: array.data for d, array in update.items()} if isinstance(update, ArrayRecord) else {}
        norm = None
        if record is not None and arrays_out:
            base = wire.fitting_arrays(offer.schema, message)
            norm = change_norm(offer.schema, base, offer.uplink.decode(offer.uplink.read(reply), base))
        # The gate has seen that they are plain numbers.
        return Outcome(cast(dict[str, float], dict(reply.content[METRICS])), arrays_out, norm=norm)

    def finished(self) -> None:
        """The reply is on disk: what was kept of the open round is no longer needed."""
        self.midround.unlink(missing_ok=True)

    def _turn_to(self, offer: Offer) -> None:
        """Drop net, loss and cases when another study comes, or when the site's settings have changed."""
        wanted = (offer.manifest.study, offer.config)
        if wanted == self._opened:
            return
        self._site = self._opened = None
        gc.collect()
        device = pick_device(offer.config.device)
        limits = offer.config.limits
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(limits.gpu_memory, device)
        torch.set_num_threads(limits.threads or self._threads)
        config = offer.config.model_copy(update={"name": offer.credentials.site})
        cache, folder = places(self._home)
        site = OpenSite(
            config, folder, lambda study: prepare(study, config, cache=cache, home=folder, progress=self._report),
            Workplace(device), policy=config.policy,
        )  # fmt: skip
        site.on_case = self._report
        self._site, self._opened = site, wanted

    def _open(self) -> OpenSite:
        assert self._site is not None  # noqa: S101 -- for the type checker
        return self._site

    def _begin(self, key: str, count: int) -> Progress:
        progress = Midround(self.midround, key, self._stopping)
        self._report(progress.done, count)
        self._open().on_step = lambda: self._report(progress.done, count, progress.stop)
        return progress

    def _report(self, done: int, of: int, stop: bool | None = None) -> None:
        """Tell how far the work is, and end it where it shall stop.

        Args:
            done: Steps or cases.
            of: How many there are.
            stop: Whether it shall, where that was asked already: what was not written down then must not end now.
        """
        self._tell(done, of)
        if self._stopping() if stop is None else stop:
            raise StopWork
