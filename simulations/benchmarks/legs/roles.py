"""fedscan's own processes with a stopwatch: `python -m simulations.benchmarks.legs.roles ROLE HOME TRACE`.

Roles `server`, `link` and `trainer` are what the command `fedscan` runs in the foreground; what is added notes the
beginning and end of calls. The trainer's app does all that it does, but for the training: the weights are changed
instead, at each site otherwise. `sites` is links and trainers of many sites, HOME/s0 to HOME/sN, forked from one
process that has imported everything and started no thread; nothing is noted then.
"""

import common.quiet  # noqa: F401

import importlib
import os
import signal
import sys
from functools import partial, wraps
from pathlib import Path
from typing import Any

from simulations.benchmarks.legs import noop_net
from simulations.benchmarks.legs.timeline import Recorder

ROUND = "round"
PARTS = ("seal", "offer", "down", "hop", "gates", "app", "up", "assemble", "spool", "fold", "checkpoint", "idle",
         "rest of server", "rest of link", "rest of trainer")  # fmt: skip

# Where each part is done: module, class or nothing, function.
_SERVER = {
    "seal": ("server.sealed:Sealed.messages", "server.sealed:Sealed.received"),
    "offer": ("server.link:Fleet.send",),
    "assemble": ("server.link:assemble",),
    "gates": ("server.sealed:SealedReply.metrics", "server.sealed:SealedReply.arrays"),
    "spool": ("server.spool:Spool.add", "server.spool:Spool.replies", "server.spool:Spool.close",
              "server.spool:Spool.clear", "server.events:Events.append"),
    "fold": ("server.strategies.fedavg:FedAvg.fold",),
    "checkpoint": ("server.checkpoint:Checkpoints.write",),
}  # fmt: skip
_LINK = {
    "down": ("client.network.fleet:Fleet.pull", "client.network.fleet:Fleet.confirm"),
    "up": ("client.network.fleet:Fleet.announce", "client.network.fleet:Fleet.push"),
    "hop": ("client.link:fetch", "client.network.upload:Reply.__init__", "client.network.upload:Reply.pieces"),
}
_TRAINER = {
    "seal": ("common.chain:Checker.check", "client.work.tasks:Intake.keep", "client.work.trainer:write_reply"),
    "hop": ("client.work.tasks:Offer.arrays", "client.handover.mailbox:Mailbox.hold_reply"),
    "gates": ("client.open_site:gate_in", "client.app:gate_out"),
    "app": ("client.work.workshop:Workshop.do",),
}


def main() -> None:
    """Be one process until SIGTERM."""
    role, home, trace = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    noop_net.register()
    {"server": _server, "link": _link, "trainer": _trainer, "sites": _sites}[role](home, Recorder(trace))


def _server(home: Path, recorder: Recorder) -> None:
    from server.checkpoint import Checkpoints
    from server.service.start import ServerOptions, serve

    _note(recorder, _SERVER)
    write = Checkpoints.write

    @wraps(write)
    def whole(*args: Any, **kwargs: Any) -> None:
        write(*args, **kwargs)
        recorder.mark(ROUND)

    setattr(Checkpoints, "write", whole)  # noqa: B010 - as for all others
    serve(ServerOptions(home, "127.0.0.1"))


def _link(home: Path, recorder: Recorder) -> None:
    from client.link import Link

    _note(recorder, _LINK)
    Link(home).run()


def _trainer(home: Path, recorder: Recorder) -> None:
    from client.trainer import run

    _note(recorder, _TRAINER)
    _do_not_train()
    run(home)


def _sites(folder: Path, _: Recorder) -> None:
    from client.link import Link
    from client.trainer import run

    _do_not_train()
    for home in sorted(folder.glob("s[0-9]*")):
        for work in (partial(run, home), Link(home).run):
            if os.fork() == 0:
                try:
                    work()
                finally:
                    os._exit(1)
    while True:
        signal.pause()


def _note(recorder: Recorder, parts: dict[str, tuple[str, ...]]) -> None:
    for part, targets in parts.items():
        for target in targets:
            module, _, path = target.partition(":")
            owner: Any = importlib.import_module(module)
            *classes, name = path.split(".")
            for inner in classes:
                owner = getattr(owner, inner)
            recorder.wrap(owner, name, part)


def _do_not_train() -> None:
    import torch

    from client import app
    from client.data.volume import SiteData
    from client.open_site import OpenSite
    from client.training import Progress

    class NoBatches:
        stream = 0

        def prefetch(self, first: int, count: int) -> list[Any]:
            return []

    def change(net: torch.nn.Module, *args: Any) -> float:
        progress: Progress = args[-1]
        on_step = args[-2]
        shift = int.from_bytes(os.urandom(4), "big") / 2**32
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(shift)
        progress.done += 1
        on_step()
        return 0.0

    cases: Any = tuple(_Case(i) for i in range(4))
    for owner, name, what in (
        (app, "train", change),
        (OpenSite, "data", lambda site, study: SiteData(cases, (), ())),
        (OpenSite, "batches", lambda site, study: NoBatches()),
    ):
        setattr(owner, name, what)


class _Case:
    """What is asked of a case when sites are counted."""

    def __init__(self, number: int) -> None:
        self.patient = str(number)


if __name__ == "__main__":
    main()
