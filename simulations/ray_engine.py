"""The same arms on Flower's own simulation engine: sites as Ray tasks, on as many cores, GPUs or hosts as Ray has.

Ray listens on all network interfaces whatever it is told and runs pickled code by design; a random token keeps
strangers out. Use it on machines that you trust.
"""

import os
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.app import OpenSite, make_app
from common.errors import StudyError
from simulations.sites import Field

FIELD = "FEDSCAN_FIELD"  # names the file that tells a worker where the sites are


@cache
def _sites(path: str) -> list[OpenSite]:
    """All sites, opened once in each worker and kept warm."""
    return Field.read(Path(path)).open()


def _open(context: Context) -> OpenSite:
    return _sites(os.environ[FIELD])[int(context.node_config["partition-id"])]


def run_on_ray(field: Field, folder: Path, work: Callable[[Grid], None]) -> None:
    """Run `work` as a ServerApp over the field's sites and the pooled one.

    Raises:
        StudyError: Ray is not installed.
        FedscanError: Whatever `work` raised.
    """
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray  # noqa: F401
        from flwr.simulation import run_simulation
    except ImportError:
        raise StudyError('--engine ray needs Ray: pip install "fedscan[ray]"') from None
    description = folder / "sites.json"
    field.write(description)
    os.environ[FIELD] = str(description.resolve())
    failures: list[Exception] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            work(grid)
        except Exception as error:  # noqa: BLE001 - Flower's engine would swallow it; it is raised again below
            failures.append(error)

    run_simulation(
        server_app=server,
        client_app=make_app(_open),
        num_supernodes=len(field.configs) + 1,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"include_dashboard": False, "runtime_env": {"env_vars": {FIELD: os.environ[FIELD]}}},
        },
    )
    if failures:
        raise failures[0]
