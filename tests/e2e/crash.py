"""Runs `fedscan` commands as processes that come to grief at a chosen moment. Not a test: the tests start it.

It imports everything once, before any thread runs, and forks for each command, so that a test waits seconds for
PyTorch only once. The product knows nothing of this: in a running process a named function is wrapped, and at its n-th
call this or another process is killed, waits, or meets a network that does not answer.

Orders come as JSON lines on stdin. With `args`: a command, in the folder `folder`, under the name `name`, with the
environment `environment`; the answer holds its process id, which also stands in NAME.pid. With `pids`: the answer holds
the exit code of each (negative: the signal), or none while it runs.

What shall happen stands in NAME.trouble (see `Trouble`) and begins with SIGUSR1; then NAME.armed is there.
"""

import common.quiet  # noqa: F401

import functools
import importlib
import itertools
import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NEEDED = (
    "client.app", "client.cli", "client.data.prepare", "client.desk.enrol", "client.desk.service",
    "client.desk.studies", "client.link", "client.node", "client.trainer", "common.cli", "common.study_check",
    "common.study_cli", "server.cli", "server.enrolment.desk", "server.enrolment.signing_desk", "server.report.run",
    "server.run_cli", "server.service.control_service", "server.service.coordinator", "server.service.deployed",
    "server.service.gathering", "server.service.run_desk", "server.service.start", "server.service.worker",
    "server.study_sign",
)  # fmt: skip


@dataclass(frozen=True)
class Trouble:
    """What happens to a process.

    Attributes:
        at: The function, "module:function" or "module:Class.method".
        call: At which call of it, from now on.
        what: `kill`; `torn`: the file that it wrote is cut in half before the kill; `hold`: it waits there until the
            file NAME.go is there; `unknown`: the first `call` calls say that the host's name is not known; `500`: of
            each three requests that reach the coordinator one is answered with a 500 in HTML, as a broken gateway does.
        whom: Names of the processes that are killed; itself if empty.
    """

    at: str = ""
    call: int = 1
    what: str = "kill"
    whom: str = ""

    def text(self) -> str:
        return json.dumps(asdict(self))


def beside(me: Path, what: str) -> Path:
    """One of the files by which tests and processes speak to each other."""
    return me.with_name(f"{me.name}.{what}")


def owner_of(at: str) -> tuple[Any, str]:
    """What has the function `at` (a module or a class), and its name there; AttributeError if there is none."""
    module, _, path = at.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for part in parents:
        owner = getattr(owner, part)
    getattr(owner, name)
    return owner, name


def arm(trouble: Trouble, me: Path) -> None:
    """Wrap the function. `me` is the path of the process's files, without their suffix."""
    owner, name = owner_of(trouble.at)
    original = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        number = next(calls)
        if trouble.what == "unknown" and number <= trouble.call:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if number == trouble.call:
            happen(trouble, me, lambda: original(*args, **kwargs), args)
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


def happen(trouble: Trouble, me: Path, call: Any, args: tuple[Any, ...]) -> None:
    if trouble.what == "hold":
        beside(me, "reached").touch()
        while not beside(me, "go").exists():
            time.sleep(0.02)
    if trouble.what == "torn":
        call()
        file = next(a for a in args if isinstance(a, Path))
        os.truncate(file, file.stat().st_size // 2)
    if trouble.what in ("kill", "torn"):
        # Who kills itself before the others does not kill them.
        for name in sorted(trouble.whom.split() or [me.name], key=lambda name: name == me.name):
            os.kill(int(beside(me.with_name(name), "pid").read_text()), signal.SIGKILL)


def break_gateway() -> None:
    """Put 500s before the coordinator's gate."""
    from server.service.coordinator import ServerLink

    # By its place: another package called `tests` may be installed beside us.
    lying = runpy.run_path(str(Path(__file__).with_name("unreliable.py")))["lying"]

    made, requests = ServerLink.__init__, itertools.count(1)
    body = b"<h1>Something went wrong</h1>"
    page = (500, {"Content-Type": "text/html", "Content-Length": str(len(body))}, body)

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        lying(self, lambda _: page if next(requests) % 3 == 0 else None)

    ServerLink.__init__ = init  # type: ignore[method-assign]


def be(order: dict[str, Any]) -> None:
    """The forked child."""
    import common.cli

    me = Path(order["folder"]) / order["name"]
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    # A test run in the background inherits that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def told(*_: object) -> None:
        arm(Trouble(**json.loads(beside(me, "trouble").read_text())), me)
        beside(me, "armed").touch()

    signal.signal(signal.SIGUSR1, told)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    if order["trouble"] == "500":
        break_gateway()
    code = 99
    try:
        code = common.cli.run(order["args"])
    except BaseException:  # noqa: BLE001 - a forked child must not go on as its parent
        traceback.print_exc()
    finally:
        # Threads that the command left behind are no reason to wait, but what it said must be out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(order: dict[str, Any]) -> int:
    me = Path(order["folder"]) / order["name"]
    child = os.fork()
    if child == 0:
        be(order)
    beside(me, "pid").write_text(str(child))
    return child


def ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def load() -> None:
    """All that the processes will need, with what PyTorch only loads when a net and an optimiser are first made."""
    for module in NEEDED:
        importlib.import_module(module)
    import torch

    import client.work.midround
    from common.study import Study
    from common.wire import Schema

    study = {
        "name": "toy",
        "data": {"dimensions": 2, "labels": ["a"]},
        "plan": {"patch": [16, 16]},
        "training": {"steps": 1},
    }
    Schema.of(Study.model_validate({**study, "net": {"name": "unet", "width": 2, "levels": 2}}))
    # Open rounds are written down after each step, not each minute.
    client.work.midround.EVERY, client.work.midround.SHARE = 0.0, 1e9
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    load()
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "threads would not survive a fork"
    # Until a child listens to it, the signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for line in sys.stdin:
        order = json.loads(line)
        answer = {"pid": start(order)} if "args" in order else {"codes": [ended(pid) for pid in order["pids"]]}
        print(json.dumps(answer), flush=True)
    # Taking PyTorch down in order takes longer than anybody wants to wait.
    os._exit(0)


if __name__ == "__main__":
    main()
