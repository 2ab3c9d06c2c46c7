"""Runs `fedscan` commands that come to grief at a chosen moment. Not a test: the tests start it as a process.

It imports everything once and forks for each command, so that a test waits seconds for PyTorch only once. The product
knows nothing of this: the named function is wrapped in the forked child, and at its n-th call the child is killed,
interrupted, or meets a full disk.

Commands come as JSON lines on stdin: `args`; `at` ("module:function" or "module:Class.method"), `call`, `what`; or
`after`, seconds until SIGKILL. Each is answered by a line: the exit code (negative: the signal), stderr, the seconds.
"""

import common.quiet

import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import common.cli
import simulations.console  # noqa: F401 - everything that a simulation needs


def arm(at: str, call: int, what: str) -> None:
    """Let `what` happen when the function `at` is called for the `call`-th time."""
    module, _, path = at.partition(":")
    owner = importlib.import_module(module)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls = itertools.count(1)

    def wrapper(*args, **kwargs):
        if next(calls) == call:
            if what == "torn":
                original(*args, **kwargs)
                file = next(a for a in args if isinstance(a, Path))
                os.truncate(file, file.stat().st_size // 2)
            if what in ("kill", "torn"):
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            elif what == "full":
                # Python ignores SIGXFSZ, so a longer file is refused as on a full disk.
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


def run(args: list[str], at: str = "", call: int = 1, what: str = "kill", after: float = 0.0) -> dict[str, object]:
    """One command in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writing, 2)
        # A test run in the background inherits that interrupts are ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if at:
            arm(at, call, what)
        code = 99
        try:
            code = common.cli.run(args)
        except BaseException:  # noqa: BLE001 - a forked child must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    began = time.monotonic()
    if after:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "said": said, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
