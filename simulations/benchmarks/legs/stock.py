"""Stock Flower, deployed as its documentation says: SuperLink, SuperNodes, TLS, node authentication, `flwr run`.

Each app runs in a subprocess (Flower's default), the state is in memory (the fastest), nothing is installed at run
time, and the hops between a SuperNode and its app are not encrypted (Flower's default on one machine).
"""

import shutil
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

from simulations.benchmarks.legs import stock_app
from simulations.benchmarks.legs.certificates import Certificates, Pair, node_keys
from simulations.benchmarks.legs.measured import Measured
from simulations.benchmarks.legs.processes import BenchmarkError, Processes, free_port

TENSORS = 200
_START, _ROUND = 120, 240  # seconds at most

_APP = """\
[project]
name = "noop"
version = "1.0.0"
description = "No training."
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.flwr.app]
publisher = "benchmark"

[tool.flwr.app.components]
serverapp = "stock_app:server"
clientapp = "stock_app:client"

[tool.flwr.app.config]
parameters = 0
tensors = 0
rounds = 0
sites = 0
out = ""
"""


def measure(folder: Path, parameters: int, sites: int, rounds: int) -> Measured:
    """Seconds of each round after the first; the start of the federation is not counted.

    Raises:
        BenchmarkError: It did not start or did not end.
    """
    certificates = Certificates(folder / "certificates", sites)
    environment = {
        "FLWR_HOME": str(folder / "flwr"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONSAFEPATH": "1",
    }
    with Processes(folder / "processes", environment) as processes:
        _start(processes, certificates, node_keys(folder / "certificates", sites))
        app = _write_app(folder)
        out = folder / "ends"
        settings = f'parameters={parameters} tensors={TENSORS} rounds={rounds + 1} sites={sites} out="{out}"'
        processes.run("flwr-run", [_tool("flwr"), "run", str(app), "benchmark", "--run-config", settings])
        processes.wait("first round", lambda: len(_ends(out)) > 0, _START + _ROUND)
        cpu = processes.cpu()
        processes.wait("end of the rounds", lambda: len(_ends(out)) > rounds, _ROUND * rounds)
        cpu = processes.cpu() - cpu
    ends = _ends(out)
    if any(answered != sites for _, answered in ends):
        raise BenchmarkError(f"not every site answered in every round: {ends}")
    return Measured([after - before for (before, _), (after, _) in pairwise(ends)], cpu / rounds)


def _ends(out: Path) -> list[tuple[float, int]]:
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    pairs = (line.split() for line in text[: text.rfind("\n") + 1].splitlines())
    return [(float(when), int(answered)) for when, answered in pairs]


def _start(processes: Processes, certificates: Certificates, nodes: list[Pair]) -> None:
    port = free_port()
    server, authority = certificates.server, str(certificates.authority)
    _write_connection(processes.folder.parent / "flwr", port, authority)
    processes.start(
        "superlink",
        [_tool("flower-superlink"), "--host", "127.0.0.1", "--port", str(port), "--ssl-certfile",
         str(server.certificate), "--ssl-keyfile", str(server.key), "--ssl-ca-certfile", authority,
         "--enable-supernode-auth", "--isolation", "subprocess", "--disable-runtime-dependency-installation"],
    )  # fmt: skip
    processes.wait("SuperLink", lambda: _listens(port, authority), _START)
    for i, node in enumerate(nodes):
        processes.run(f"register-{i}", [_tool("flwr"), "supernode", "register", str(node.certificate), "benchmark"])
        processes.start(
            f"supernode-{i}",
            [_tool("flower-supernode"), "--superlink", f"127.0.0.1:{port}", "--root-certificates", authority,
             "--auth-supernode-private-key", str(node.key), "--host", "127.0.0.1", "--port", str(free_port()),
             "--isolation", "subprocess"],
        )  # fmt: skip
    there = [partial(processes.says, f"supernode-{i}", "SuperNode ID") for i in range(len(nodes))]
    processes.wait("SuperNodes", lambda: all(says() for says in there), _START)


def _listens(port: int, authority: str) -> bool:
    context = ssl.create_default_context(cafile=authority)
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 1) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        return True
    return False


def _write_connection(home: Path, port: int, authority: str) -> None:
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "benchmark"\n\n[superlink.benchmark]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{authority}"\n',
        encoding="utf-8",
    )


def _write_app(folder: Path) -> Path:
    app = folder / "noop"
    app.mkdir()
    (app / "pyproject.toml").write_text(_APP, encoding="utf-8")
    shutil.copy(stock_app.__file__, app / "stock_app.py")
    return app


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
