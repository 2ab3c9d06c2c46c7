"""The same arms on Flower's own simulation engine: sites as Ray tasks, on as many cores, GPUs or hosts as Ray has.

Ray listens on all network interfaces whatever it is told and runs pickled code by design; a random token keeps
strangers out. Use it on machines that you trust.
"""

import logging
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from client.app import make_app
from client.device import pick_device
from client.open_site import OpenSite
from common.errors import FedscanError, RoundError, StudyError
from server.exchange import POLL
from simulations.sites import Field

Work = Callable[[Grid], None]


@cache
def _sites(path: str) -> list[OpenSite]:
    """All sites, opened once in each worker and kept warm."""
    return Field.read(Path(path)).open()


def _open(path: str, context: Context) -> OpenSite:
    return _sites(path)[int(context.node_config["partition-id"])]


def run_on_ray(field: Field, folder: Path, work: Work) -> None:
    """Run `work` as a ServerApp over the field's sites and the pooled one.

    Raises:
        StudyError: Ray is not installed.
        RoundError: The engine did not start, or broke.
        Exception: Whatever `work` raised.
    """
    if "RAY_ADDRESS" not in os.environ:  # a cluster that is there already has its own
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Sites say themselves on which device they work; Ray warns until it is told not to hide GPUs from workers.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: F401
        from flwr.simulation import run_simulation
    except ImportError:
        raise StudyError('--engine ray needs Ray: pip install "fedscan[ray]"') from None
    description = folder / "sites.json"
    field.write(description)
    nodes = len(field.configs) + 1
    server = _Server(work, nodes)
    # Flower logs each step, and that run_simulation will go one day; what is left are tracebacks of our own bugs.
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            run_simulation(
                server_app=server.app,
                client_app=make_app(partial(_open, str(description.resolve()))),
                num_supernodes=nodes,
                backend_config=_backend(field),
            )
    except RuntimeError as error:
        raise RoundError(
            f"Flower's simulation engine broke: {_root(error)}. Go on with --resume; --engine inline does without Ray"
        ) from error
    finally:
        server.stop()
    server.raise_failure()


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _backend(field: Field) -> dict[str, dict[str, Any]]:
    """One core for each task; a GPU each where the sites use one."""
    on_gpu = any(pick_device(c.device).type == "cuda" for c in field.configs)
    start: dict[str, Any] = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
    if "RAY_ADDRESS" not in os.environ:
        # More workers than sites would only cost memory.
        start["num_cpus"] = min(os.cpu_count() or 1, len(field.configs) + 1)
    return {"client_resources": {"num_cpus": 1, "num_gpus": 1.0 if on_gpu else 0.0}, "init_args": start}


class _Server:
    """`work` as a ServerApp. Flower runs it in a thread, drops what it raises, and never stops it."""

    def __init__(self, work: Work, nodes: int) -> None:
        self.app = ServerApp()
        self._failure: BaseException | None = None
        self._stopped = threading.Event()

        @self.app.main()
        def main(grid: Grid, context: Context) -> None:
            self._pull = grid.pull_messages
            grid.pull_messages = self._pull_unless_stopped  # type: ignore[method-assign]
            try:
                # The thread starts before Flower has registered the nodes.
                while len(list(grid.get_node_ids())) < nodes and not self._stopped.wait(POLL):
                    pass
                work(grid)
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                self._failure = error

    def _pull_unless_stopped(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if self._stopped.is_set():
            raise FedscanError("the simulation engine ended")
        return self._pull(message_ids)

    def stop(self) -> None:
        """End the thread if the engine broke or was interrupted: it would poll for ever, and keep the process alive."""
        self._stopped.set()

    def raise_failure(self) -> None:
        """Raise what `work` raised."""
        if self._failure is not None:
            raise self._failure
